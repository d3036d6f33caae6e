// Uses the server through ioredis, as an application does.
import { assert, port, require } from "./clients.mjs";

const { Redis } = require("ioredis");

for (const protocol of [2, 3]) {
  const client = new Redis({ port, protocol, connectionName: `io${protocol}` });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  await client.flushall();
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.set("key", "välue"), "OK");
  assert.equal(await client.get("key"), "välue");
  assert.equal(await client.get("missing"), null);
  assert.equal(await client.set("key", "other", "EX", 100, "NX"), null);
  const binary = Buffer.from([0, 13, 10, 255]);
  await client.set("binary", binary);
  assert.ok(binary.equals(await client.getBuffer("binary")));
  assert.equal(await client.mset({ a: 1, b: 2 }), "OK");
  assert.deepEqual(await client.mget("a", "missing", "b"), ["1", null, "2"]);
  assert.equal(await client.incrby("a", 41), 42);
  assert.equal(await client.pexpire("a", 100000), 1);
  assert.ok((await client.pttl("a")) > 0);
  assert.equal(await client.del("a", "b", "missing"), 2);
  assert.equal(await client.client("GETNAME"), `io${protocol}`);
  assert.match(await client.info("server"), /redis_mode:standalone/);
  await assert.rejects(client.incr("key"), /not an integer/);
  await assert.rejects(client.call("NOSUCH"), /unknown command/);

  const pipeline = client.pipeline();
  for (let n = 0; n < 1000; n++) pipeline.set(`key:${n}`, n).get(`key:${n}`);
  const replies = await pipeline.exec();
  assert.ok(replies.every(([error]) => error === null));
  assert.deepEqual(replies[1999], [null, "999"]);

  const seen = new Set();
  for await (const keys of client.scanStream({ match: "key:*", count: 100 })) {
    keys.forEach((key) => seen.add(key));
  }
  assert.equal(seen.size, 1000);

  assert.equal(await client.hset("hash", { a: 1, b: "two" }), 2);
  assert.deepEqual({ ...(await client.hgetall("hash")) }, { a: "1", b: "two" });
  assert.equal(await client.rpush("list", "x", "y", "z"), 3);
  assert.deepEqual(await client.lrange("list", 0, -1), ["x", "y", "z"]);
  assert.deepEqual(await client.blpop("missing", "list", 5), ["list", "x"]);
  assert.equal(await client.sadd("set", "a", "b"), 2);
  assert.deepEqual([...(await client.smembers("set"))].sort(), ["a", "b"]);
  assert.equal(await client.zadd("zset", 1, "one", 2.5, "two"), 2);
  assert.deepEqual(await client.zrange("zset", 0, -1), ["one", "two"]);
  assert.equal(await client.pfadd("visitors", "a", "b", "c"), 1);
  assert.equal(await client.pfadd("more", "c", "d"), 1);
  assert.equal(await client.pfcount("visitors", "more"), 4);
  assert.equal(await client.pfmerge("all", "visitors", "more"), "OK");
  assert.equal(await client.pfcount("all"), 4);
  const towns = [13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"];
  assert.equal(await client.geoadd("places", ...towns), 2);
  assert.equal(await client.geodist("places", "Palermo", "Catania", "KM"), "166.2742");
  assert.deepEqual(await client.geohash("places", "Palermo", "missing"), ["sqc8b49rny0", null]);
  const [position, missing] = await client.geopos("places", "Palermo", "missing");
  assert.ok(Math.abs(position[0] - 13.361389) < 1e-5 && missing === null);
  const near = ["FROMLONLAT", 15, 37, "BYRADIUS", 200, "km", "ASC", "WITHDIST"];
  const found = await client.geosearch("places", ...near);
  assert.deepEqual(found, [["Catania", "56.4413"], ["Palermo", "190.4424"]]);
  assert.equal(await client.geosearchstore("near", "places", ...near.slice(0, 7)), 2);
  assert.equal(await client.georadius("places", 15, 37, 100, "km", "STORE", "near"), 1);
  const id = await client.xadd("stream", "*", "field", "value");
  assert.deepEqual(await client.xrange("stream", "-", "+"), [[id, ["field", "value"]]]);
  assert.equal((await client.xread("BLOCK", 5000, "STREAMS", "stream", "0")) !== null, true);
  const done = await client.multi().set("a", 1).incrby("a", 2).llen("list").exec();
  assert.deepEqual(done, [[null, "OK"], [null, 3], [null, 2]]);
  await client.watch("a");
  await client.set("a", 5);
  assert.equal(await client.multi().incr("a").exec(), null);

  const subscriber = client.duplicate();
  const heard = new Promise((resolve) => {
    subscriber.on("pmessage", (pattern, channel, message) => resolve([pattern, channel, message]));
  });
  await subscriber.psubscribe("ne*");
  assert.equal(await client.publish("news", "hello"), 1);
  assert.deepEqual(await heard, ["ne*", "news", "hello"]);
  await subscriber.quit();
  await client.quit();
}
console.log("ioredis ok");
