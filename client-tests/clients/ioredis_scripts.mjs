// Defines commands by scripts with ioredis, and calls them alone, in pipelines and in MULTI.
import { assert, port, require } from "./clients.mjs";

const { Redis } = require("ioredis");

// Appends to a list unless it is full. Returns the length and the first element.
const pushLimited = `
  local length = redis.call("LLEN", KEYS[1])
  if length >= tonumber(ARGV[1]) then
    return redis.error_reply("FULL with " .. length)
  end
  for n = 2, #ARGV do
    length = redis.call("RPUSH", KEYS[1], ARGV[n])
  end
  return {length, redis.call("LINDEX", KEYS[1], 0)}`;
const binary = Buffer.from([0, 13, 10, 255, 128]);

function connect(protocol) {
  const client = new Redis({
    port,
    protocol,
    scripts: { join: { lua: 'return table.concat(KEYS, ",") .. ";" .. table.concat(ARGV, ",")' } },
  });
  client.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  client.defineCommand("pushLimited", { numberOfKeys: 1, lua: pushLimited });
  client.defineCommand("peek", {
    numberOfKeys: 1,
    readOnly: true,
    lua: 'return {redis.call("LRANGE", KEYS[1], 0, -1), false, {ok = "FINE"}, 2.9}',
  });
  return client;
}

for (const protocol of [2, 3]) {
  const client = connect(protocol);
  await client.flushall();
  await client.script("FLUSH");

  assert.deepEqual(await client.pushLimited("list", 3, "a"), [1, "a"]);
  assert.deepEqual(await client.pushLimited("list", 3, "b", "c"), [3, "a"]);
  await assert.rejects(client.pushLimited("list", 3, "d"), /^ReplyError: FULL with 3/);
  assert.deepEqual(await client.peek("list"), [["a", "b", "c"], null, "FINE", 2]);
  assert.equal(await client.join(2, "k1", "k2", "a1"), "k1,k2;a1");
  assert.equal(await client.join(0), ";");

  // The reply as bytes, and bytes as arguments.
  assert.ok(binary.equals((await client.pushLimitedBuffer("binary", 3, binary))[1]));
  assert.ok(binary.equals((await client.peekBuffer("binary"))[0][0]));
  assert.ok(binary.equals(await client.lindexBuffer("binary", 0)));
  assert.ok(Buffer.concat([Buffer.from(";"), binary]).equals(await client.joinBuffer(0, binary)));

  // After SCRIPT FLUSH the client gets NOSCRIPT, and sends the source.
  await client.script("FLUSH");
  const sha = await client.script("LOAD", "return 1");
  assert.deepEqual(await client.script("EXISTS", sha, "f".repeat(40)), [1, 0]);
  await client.script("FLUSH");
  assert.deepEqual(await client.script("EXISTS", sha), [0]);
  await assert.rejects(client.evalsha(sha, 0), /NOSCRIPT/);
  await client.del("list");
  assert.deepEqual(await client.pushLimited("list", 9, "again"), [1, "again"]);
  // Concurrent calls on one connection, all of a script that the server does not have.
  await client.script("FLUSH");
  const calls = Array.from({ length: 50 }, (_, n) => client.pushLimited("many", 50, n));
  assert.deepEqual(await Promise.all(calls), calls.map((_, n) => [n + 1, "0"]));

  for (const transaction of [false, true]) {
    for (const flush of [true, false]) {
      await client.del("list", "plain");
      if (flush) await client.script("FLUSH");
      // A new connection asks by SCRIPT EXISTS first. Others rely on what they know for a minute.
      const fresh = flush ? connect(protocol) : client;
      const pipeline = transaction ? fresh.multi() : fresh.pipeline();
      pipeline.set("plain", 1);
      for (let n = 0; n < 100; n++) pipeline.pushLimited("list", 99, n);
      pipeline.peek("list").pushLimitedBuffer("other", 1000, binary).incr("plain");
      const replies = await pipeline.exec();
      assert.equal(replies.length, 104);
      assert.deepEqual(replies[0], [null, "OK"]);
      assert.deepEqual(replies[99], [null, [99, "0"]]);
      // Only the call on the full list fails.
      assert.match(replies[100][0].message, /^FULL with 99/);
      assert.equal(replies[101][1][0].length, 99);
      assert.ok(binary.equals(replies[102][1][1]));
      assert.deepEqual(replies[103], [null, 2]);
      if (flush) await fresh.quit();
    }
  }

  // MULTI without a pipeline: each command is queued by the server.
  await client.multi({ pipeline: false });
  assert.equal(await client.pushLimited("queued", 1, "x"), "QUEUED");
  assert.equal(await client.pushLimited("queued", 1, "y"), "QUEUED");
  const [first, second] = await client.exec();
  assert.deepEqual(first, [null, [1, "x"]]);
  assert.match(second[0].message, /^FULL with 1/);
  // A watched key that a script has changed aborts the transaction.
  const other = connect(protocol);
  await client.watch("queued");
  assert.deepEqual(await other.pushLimited("queued", 2, "z"), [2, "x"]);
  assert.equal(await client.multi().pushLimited("queued", 3, "never").exec(), null);
  assert.deepEqual(await client.lrange("queued", 0, -1), ["x", "z"]);

  // A message that a script publishes.
  const heard = new Promise((resolve) => other.on("message", (...words) => resolve(words)));
  await other.subscribe("news");
  const publish = 'return redis.call("PUBLISH", KEYS[1], ARGV[1])';
  assert.equal(await client.eval(publish, 1, "news", "hi"), 1);
  assert.deepEqual(await heard, ["news", "hi"]);
  // A script that feeds a blocked client.
  const blocked = connect(protocol);
  const popped = blocked.blpop("wanted", 20);
  assert.deepEqual(await client.pushLimited("wanted", 2, "one"), [1, "one"]);
  assert.deepEqual(await popped, ["wanted", "one"]);

  const library = `#!lua name=names${protocol}
    redis.register_function("greet", function(keys, args)
      return redis.call("GET", keys[1]) .. ", " .. args[1]
    end)`;
  assert.equal(await client.call("FUNCTION", "LOAD", library), `names${protocol}`);
  await client.set("greeting", "Hello");
  assert.equal(await client.fcall("greet", 1, "greeting", "Ann"), "Hello, Ann");
  assert.ok((await client.callBuffer("FCALL", "greet", 1, "greeting", binary)).includes(binary));
  assert.equal(await client.function("DELETE", `names${protocol}`), "OK");
  for (const each of [other, blocked, client]) await each.quit();
}
console.log("ioredis scripts ok");
