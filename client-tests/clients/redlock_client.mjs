// Locks resources with redlock on one server through three connections, as if they were three.
import { assert, port, require, until } from "./clients.mjs";

const { Redis } = require("ioredis");
const Redlock = require("redlock");

// Long enough that no lock of this program expires unless it is meant to.
const TTL = 60_000;

// One database for each connection, so that they hold different locks.
const clients = [0, 1, 2].map((db) => new Redis({ port, db }));
await clients[0].flushall();
await clients[0].script("FLUSH");
const failures = [];

function locker(options) {
  const redlock = new Redlock(clients, { retryJitter: 5, retryDelay: 5, ...options });
  redlock.on("clientError", (error) => failures.push(error));
  return redlock;
}
const redlock = locker({ retryCount: 2000 });
const hasty = locker({ retryCount: 1 });
const values = async (key) => Promise.all(clients.map((client) => client.get(key)));

// A lock is on all three databases with its value, and no other lock gets or releases it.
const lock = await redlock.lock("resource", TTL);
assert.deepEqual(await values("resource"), Array(3).fill(lock.value));
await assert.rejects(hasty.lock("resource", TTL), { name: "LockError" });
await assert.rejects(hasty.unlock({ resource: "resource", value: "forged" }), /fully release/);
assert.deepEqual(await values("resource"), Array(3).fill(lock.value));

const before = await clients[0].pexpiretime("resource");
await lock.extend(10 * TTL);
assert.ok((await clients[0].pexpiretime("resource")) > before + 8 * TTL);
assert.deepEqual(await values("resource"), Array(3).fill(lock.value));
await lock.unlock();
assert.deepEqual(await values("resource"), [null, null, null]);
await assert.rejects(redlock.unlock(lock), /Unable to fully release/);
await assert.rejects(lock.extend(TTL), /already expired/);

// A majority suffices; a minority does not, and leaves nothing behind.
await clients[0].set("partly", "another lock");
const partly = await hasty.lock("partly", TTL);
assert.deepEqual(await values("partly"), ["another lock", partly.value, partly.value]);
await partly.unlock();
await clients[1].set("partly", "another lock");
await assert.rejects(hasty.lock("partly", TTL), { name: "LockError" });
assert.deepEqual(await values("partly"), ["another lock", "another lock", null]);

// Several resources at once: all or none.
const both = await redlock.lock(["one", "two"], TTL);
await assert.rejects(hasty.lock(["three", "two"], TTL), { name: "LockError" });
assert.deepEqual(await values("three"), [null, null, null]);
await both.unlock();
await (await hasty.lock(["three", "two"], TTL)).unlock();

// A lock that has expired can be neither extended nor released, and the resource is free.
const short = await redlock.lock("short", 1000);
for (const client of clients) await client.pexpire("short", 1);
await until(async () => (await values("short")).every((value) => value === null), "the expiry");
const next = await redlock.lock("short", TTL);
await assert.rejects(short.unlock(), /Unable to fully release/);
assert.deepEqual(await values("short"), Array(3).fill(next.value));
await next.unlock();

// Contention: each turn reads and writes a counter, which two owners at a time would spoil.
let owners = 0;
async function work(turns) {
  const own = locker({ retryCount: 2000 });
  for (let n = 0; n < turns; n++) {
    const held = await own.lock("contended", TTL);
    assert.equal(++owners, 1);
    await clients[0].set("sum", Number(await clients[0].get("sum")) + 1);
    owners--;
    await held.unlock();
  }
}
await Promise.all([1, 2, 3, 4].map(() => work(15)));
assert.equal(await clients[0].get("sum"), "60");
assert.deepEqual(await values("contended"), [null, null, null]);

// The library falls back to EVAL by itself, without an error for the application.
assert.deepEqual(failures, []);
await redlock.quit();
console.log("redlock ok");
