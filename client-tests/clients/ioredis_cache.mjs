// A client-side cache made with ioredis: messages are redirected to a connection that subscribes.
import { assert, port, require, until } from "./clients.mjs";

const { Redis } = require("ioredis");

const [client, messages, other] = [1, 2, 3].map(() => new Redis({ port, protocol: 2 }));
for (const one of [client, messages, other]) {
  one.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
}
const cache = new Map();
const id = await messages.client("ID");
messages.on("message", (channel, keys) => {
  assert.equal(channel, "__redis__:invalidate");
  [keys].flat().forEach((key) => cache.delete(key));
});
await messages.subscribe("__redis__:invalidate");
assert.equal(await client.client("TRACKING", "ON", "REDIRECT", id, "NOLOOP"), "OK");
assert.equal(await client.client("GETREDIR"), id);
const get = async (key) => {
  if (!cache.has(key)) cache.set(key, await client.get(key));
  return cache.get(key);
};

await other.flushall();
for (let n = 0; n < 100; n++) {
  await other.set("name", n);
  await until(async () => (await get("name")) === `${n}`, `value ${n}`);
}
await client.set("own", "1");
assert.equal(await get("own"), "1");
await client.set("own", "2");
assert.equal(await get("own"), "1", "NOLOOP says nothing of own changes");
for (const one of [client, messages, other]) one.disconnect();
console.log("ioredis ok");
