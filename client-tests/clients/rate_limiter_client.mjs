// Limits rates with rate-limiter-flexible, through ioredis (EVALSHA) and node-redis (EVAL).
import { assert, port, require } from "./clients.mjs";

const { Redis } = require("ioredis");
const { createClient } = require("redis");
const { BurstyRateLimiter, RateLimiterRedis, RateLimiterUnion } = require("rate-limiter-flexible");

// Long enough that no period of this program ends by itself.
const duration = 10_000;

// Resolves with the name and result of each call, whether it was allowed or not.
async function outcome(promise) {
  try {
    return ["allowed", await promise];
  } catch (refusal) {
    if (refusal instanceof Error) throw refusal;
    return ["refused", refusal];
  }
}

async function check(prefix, options, admin) {
  const limiter = new RateLimiterRedis({ ...options, keyPrefix: prefix, points: 5, duration });
  for (let n = 1; n <= 5; n++) {
    const result = await limiter.consume("ann");
    assert.equal(result.consumedPoints, n);
    assert.equal(result.remainingPoints, 5 - n);
    assert.equal(result.isFirstInDuration, n === 1);
    assert.ok(result.msBeforeNext > duration * 500 && result.msBeforeNext <= duration * 1000);
  }
  const [kind, refusal] = await outcome(limiter.consume("ann", 2));
  assert.equal(kind, "refused");
  assert.equal(refusal.consumedPoints, 7);
  assert.equal(refusal.remainingPoints, 0);
  assert.equal((await limiter.get("ann")).consumedPoints, 7);
  assert.equal(await admin.get(`${prefix}:ann`), "7");
  // Other keys are independent, and the points can be given back.
  assert.equal((await limiter.consume("bob", 3)).remainingPoints, 2);
  assert.equal((await limiter.reward("bob", 2)).consumedPoints, 1);
  assert.equal((await limiter.penalty("bob", 3)).consumedPoints, 4);
  assert.equal(await limiter.delete("ann"), true);
  assert.equal(await limiter.get("ann"), null);
  // A key without an expiry time gets one.
  await admin.set(`${prefix}:old`, 1);
  assert.equal((await limiter.consume("old")).consumedPoints, 2);
  assert.ok((await admin.ttl(`${prefix}:old`)) > duration / 2);

  // Of 40 concurrent calls exactly as many are allowed as there are points.
  const calls = Array.from({ length: 40 }, () => outcome(limiter.consume("crowd")));
  const kinds = (await Promise.all(calls)).map(([word]) => word);
  assert.equal(kinds.filter((word) => word === "allowed").length, 5);
  assert.equal((await limiter.get("crowd")).consumedPoints, 40);

  // A refused key stays blocked for as long as said.
  const blocking = new RateLimiterRedis({
    ...options, keyPrefix: `${prefix}b`, points: 1, duration, blockDuration: 10 * duration,
  });
  await blocking.consume("eve");
  const [, blocked] = await outcome(blocking.consume("eve"));
  assert.ok(blocked.msBeforeNext > duration * 5000);
  assert.ok((await admin.ttl(`${prefix}b:eve`)) > 5 * duration);

  const burst = new RateLimiterRedis({ ...options, keyPrefix: `${prefix}u`, points: 3, duration });
  const bursty = new BurstyRateLimiter(limiter, burst);
  const words = [];
  for (let n = 0; n < 9; n++) words.push((await outcome(bursty.consume("dan")))[0]);
  assert.deepEqual(words, [...Array(8).fill("allowed"), "refused"]);
  const union = new RateLimiterUnion(limiter, burst);
  const both = await union.consume("fay", 3);
  assert.deepEqual(Object.values(both).map((each) => each.remainingPoints), [2, 0]);
}

const admin = new Redis({ port });
await admin.flushall();
for (const protocol of [2, 3]) {
  await admin.script("FLUSH");
  const ioredis = new Redis({ port, protocol });
  await check(`io${protocol}`, { storeClient: ioredis }, admin);
  const node = createClient({ RESP: protocol, socket: { port } });
  await node.connect();
  await check(`node${protocol}`, { storeClient: node, useRedisPackage: true }, admin);
  await ioredis.quit();
  await node.close();
}
await admin.quit();
console.log("rate-limiter-flexible ok");
