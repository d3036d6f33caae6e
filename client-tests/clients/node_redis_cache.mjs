// Uses the client-side cache of node-redis.
import { assert, port, require, until } from "./clients.mjs";

const { createClient } = require("redis");

const other = createClient({ url: `redis://127.0.0.1:${port}` });
const client = createClient({
  url: `redis://127.0.0.1:${port}`,
  RESP: 3,
  clientSideCache: { ttl: 0, maxEntries: 0, evictPolicy: "LRU", recordStats: true },
});
for (const one of [other, client]) {
  one.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  await one.connect();
}
const reads = async () =>
  Number((await other.info("commandstats")).match(/cmdstat_get:calls=(\d+)/)?.[1] ?? 0);

await other.flushAll();
await other.set("name", "first");
assert.equal(await client.get("name"), "first");
const before = await reads();
for (let n = 0; n < 100; n++) assert.equal(await client.get("name"), "first");
assert.equal(await reads(), before, "the reads come from the cache");

for (let n = 0; n < 100; n++) {
  await other.set("name", `value ${n}`);
  await until(async () => (await client.get("name")) === `value ${n}`, `value ${n}`);
  await other.hSet("hash", "field", n);
  await until(async () => (await client.hGet("hash", "field")) === `${n}`, `field ${n}`);
}
await other.flushAll();
await until(async () => (await client.get("name")) === null, "an empty database");
client.destroy();
other.destroy();
console.log("node-redis ok");
