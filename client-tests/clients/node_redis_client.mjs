// Uses the server through node-redis, as an application does.
import { assert, port, require } from "./clients.mjs";

const { createClient } = require("redis");

for (const RESP of [2, 3]) {
  const client = createClient({ socket: { port }, RESP, name: `node${RESP}` });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  await client.connect();
  await client.flushAll();
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.set("key", "välue"), "OK");
  assert.equal(await client.get("key"), "välue");
  assert.equal(await client.get("missing"), null);
  assert.equal(await client.set("key", "other", { condition: "NX" }), null);
  assert.equal(await client.set("timed", "x", { expiration: { type: "EX", value: 100 } }), "OK");
  assert.ok((await client.ttl("timed")) > 0);
  assert.equal(await client.mSet({ a: "1", b: "2" }), "OK");
  assert.deepEqual(await client.mGet(["a", "missing", "b"]), ["1", null, "2"]);
  assert.equal(await client.incrBy("a", 41), 42);
  assert.equal(await client.append("b", "34"), 3);
  assert.equal(await client.getRange("b", 1, 2), "34");
  assert.equal(await client.del(["a", "b", "missing"]), 2);
  assert.equal(await client.clientGetName(), `node${RESP}`);
  assert.match(await client.info("server"), /redis_mode:standalone/);
  await assert.rejects(client.incr("key"), /not an integer/);
  await assert.rejects(client.sendCommand(["NOSUCH"]), /unknown command/);

  const numbers = Array.from({ length: 1000 }, (_, n) => n);
  await Promise.all(numbers.map((n) => client.set(`key:${n}`, String(n))));
  const values = await Promise.all(numbers.map((n) => client.get(`key:${n}`)));
  assert.deepEqual(values, numbers.map(String));

  const seen = new Set();
  for await (const keys of client.scanIterator({ MATCH: "key:*", COUNT: 100 })) {
    keys.forEach((key) => seen.add(key));
  }
  assert.equal(seen.size, 1000);

  assert.equal(await client.hSet("hash", { a: "1", b: "two" }), 2);
  assert.deepEqual({ ...(await client.hGetAll("hash")) }, { a: "1", b: "two" });
  assert.equal(await client.rPush("list", ["x", "y", "z"]), 3);
  assert.deepEqual(await client.lRange("list", 0, -1), ["x", "y", "z"]);
  assert.deepEqual(await client.blPop("list", 5), { key: "list", element: "x" });
  assert.equal(await client.sAdd("set", ["a", "b"]), 2);
  assert.deepEqual([...(await client.sMembers("set"))].sort(), ["a", "b"]);
  const scores = [{ score: 1, value: "one" }, { score: 2.5, value: "two" }];
  assert.equal(await client.zAdd("zset", scores), 2);
  const ranked = await client.zRangeWithScores("zset", 0, -1);
  assert.deepEqual(ranked.map(({ value, score }) => ({ score, value })), scores);
  assert.equal(await client.pfAdd("visitors", ["a", "b", "c"]), 1);
  assert.equal(await client.pfAdd("more", ["c", "d"]), 1);
  assert.equal(await client.pfCount(["visitors", "more"]), 4);
  assert.equal(await client.pfMerge("all", ["visitors", "more"]), "OK");
  assert.equal(await client.pfCount("all"), 4);
  const towns = [
    { longitude: 13.361389, latitude: 38.115556, member: "Palermo" },
    { longitude: 15.087269, latitude: 37.502669, member: "Catania" },
  ];
  assert.equal(await client.geoAdd("places", towns), 2);
  assert.equal(await client.geoDist("places", "Palermo", "Catania", "km"), 166.2742);
  assert.deepEqual(await client.geoHash("places", ["Palermo", "missing"]), ["sqc8b49rny0", null]);
  const [position, missing] = await client.geoPos("places", ["Palermo", "missing"]);
  assert.ok(Math.abs(position.longitude - 13.361389) < 1e-5 && missing === null);
  const [center, area] = [{ longitude: 15, latitude: 37 }, { radius: 200, unit: "km" }];
  const sorted = { SORT: "ASC" };
  const names = await client.geoSearch("places", center, area, sorted);
  assert.deepEqual(names, ["Catania", "Palermo"]);
  const found = await client.geoSearchWith("places", center, area, ["WITHDIST"], sorted);
  assert.deepEqual(found.map(({ distance }) => Number(distance)), [56.4413, 190.4424]);
  assert.equal(await client.geoSearchStore("near", "places", center, area), 2);
  const id = await client.xAdd("stream", "*", { field: "value" });
  const entries = await client.xRange("stream", "-", "+");
  assert.deepEqual(entries.map((entry) => [entry.id, entry.message.field]), [[id, "value"]]);
  const done = await client.multi().set("a", "1").incrBy("a", 2).lLen("list").exec();
  assert.deepEqual(done, ["OK", 3, 2]);
  await client.watch("a");
  await client.sendCommand(["SET", "a", "5"]);
  await assert.rejects(client.multi().incr("a").exec(), /watch|abort/i);

  const subscriber = client.duplicate();
  await subscriber.connect();
  const heard = new Promise((resolve) => {
    subscriber.pSubscribe("ne*", (message, channel) => resolve([channel, message])).then(() =>
      client.publish("news", "hello"));
  });
  assert.deepEqual(await heard, ["news", "hello"]);
  await subscriber.close();
  await client.close();
}
console.log("node-redis ok");
