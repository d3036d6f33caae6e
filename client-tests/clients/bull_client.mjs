// Runs Bull 4 on two workers. Some of its scripts are called in MULTI, and use undeclared keys.
import { assert, port, require, until, waitForCounts } from "./clients.mjs";

const Queue = require("bull");
const { Redis } = require("ioredis");

const admin = new Redis({ port });
const open = [];

function queueOf(name, options) {
  const queue = new Queue(name, { redis: { host: "127.0.0.1", port }, ...options });
  queue.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  open.push(queue);
  return queue;
}

// Two workers, and the ids of the jobs in the order in which they began.
function work(name, handler, options) {
  const begun = [];
  const workers = [0, 1].map(() => {
    const worker = queueOf(name, options);
    worker.process("*", 2, async (job) => {
      begun.push(job.id);
      return handler(job);
    });
    return worker;
  });
  return { begun, workers };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);

async function plainJobs() {
  const queue = queueOf("plain");
  const results = new Map();
  const all = new Promise((resolve) => {
    queue.on("global:completed", (id, result) => {
      assert.ok(!results.has(id), `job ${id} has completed twice`);
      results.set(id, JSON.parse(result));
      if (results.size === 200) resolve();
    });
  });
  await queue.isReady();
  const { begun } = work("plain", async (job) => {
    await job.progress(40);
    return { square: job.data.number ** 2 };
  });
  // EVALSHA in MULTI.
  const jobs = numbers(200).map((number) => ({ name: "n", data: { number } }));
  const added = await queue.addBulk(jobs);
  await all;
  await waitForCounts(queue, { completed: 200 });
  assert.equal(new Set(begun).size, 200);
  assert.equal(begun.length, 200);
  for (const [number, job] of added.entries()) {
    assert.deepEqual(results.get(String(job.id)), { square: number ** 2 });
  }
  const job = await queue.getJob(added[3].id);
  assert.deepEqual(await job.finished(), { square: 9 });
  assert.equal(await job.isCompleted(), true);
  assert.equal(job._progress, 40);
  assert.equal((await queue.clean(0, "completed")).length, 200);
  await waitForCounts(queue, {});
}

async function orderedJobs() {
  const queue = queueOf("ordered");
  await queue.pause();
  for (const [n, priority] of [3, 1, 2].entries()) {
    await queue.add("job", {}, { priority, jobId: `p${priority}-${n}` });
  }
  await queue.add("job", {}, { jobId: "plain" });
  await queue.add("job", {}, { jobId: "lifo", lifo: true });
  await queue.add("job", {}, { jobId: "lifo" });
  assert.deepEqual(await queue.getCountsPerPriority([1, 2, 3, 4]), { 1: 1, 2: 1, 3: 1, 4: 0 });
  const begun = [];
  queueOf("ordered").process("*", 1, async (job) => void begun.push(job.id.slice(0, 5)));
  await queue.resume();
  await waitForCounts(queue, { completed: 5 });
  assert.deepEqual(begun, ["lifo", "p1-1", "p2-2", "p3-0", "plain"]);
}

async function delayedAndFailingJobs() {
  const queue = queueOf("failing");
  const tries = new Map();
  work("failing", async (job) => {
    const attempt = (tries.get(job.id) ?? 0) + 1;
    tries.set(job.id, attempt);
    if (attempt <= job.data.failures) throw new Error(`failure ${attempt}`);
  });
  for (const n of numbers(15)) {
    const options = { attempts: 3, delay: n % 3 === 0 ? 50 + n : 0, backoff: n % 2 ? 10 : 0 };
    await queue.add("job", { failures: n % 5 }, options);
  }
  const never = await queue.add("job", { failures: 0 }, { delay: 1e9 });
  const promoted = await queue.add("job", { failures: 0 }, { delay: 1e9 });
  await promoted.promote();
  await waitForCounts(queue, { completed: 10, delayed: 1, failed: 6 });
  assert.equal([...tries.values()].reduce((sum, n) => sum + n), 3 * (1 + 2 + 3 + 3 + 3) + 1);
  for (const job of await queue.getFailed()) {
    assert.equal(job.failedReason, "failure 3");
    assert.equal(job.attemptsMade, 3);
    await job.retry();
  }
  // Those with three failures succeed now, and the others once more need another attempt.
  await waitForCounts(queue, { completed: 13, delayed: 1, failed: 3 });
  await never.remove();
  await waitForCounts(queue, { completed: 13, failed: 3 });
}

async function repeatedAndLimitedJobs() {
  const repeated = queueOf("repeated");
  const { begun } = work("repeated", async () => {});
  await repeated.add("tick", {}, { repeat: { every: 60, limit: 3 } });
  await repeated.add("yearly", {}, { repeat: { cron: "0 0 1 1 *" } });
  assert.deepEqual((await repeated.getRepeatableJobs()).map((job) => job.name).sort(), [
    "tick", "yearly",
  ]);
  await until(async () => (await repeated.getCompletedCount()) === 3, "three repeated jobs");
  await repeated.removeRepeatable("yearly", { cron: "0 0 1 1 *" });
  await waitForCounts(repeated, { completed: 3 });
  assert.equal(new Set(begun).size, 3);

  // The limiter's period ends only when its key is deleted.
  const limiter = { max: 2, duration: 1e6 };
  const limited = queueOf("limited", { limiter });
  await limited.addBulk(numbers(5).map((number) => ({ name: "job", data: { number } })));
  const { begun: limitedJobs } = work("limited", async () => {}, { limiter });
  await waitForCounts(limited, { completed: 2, delayed: 3 });
  assert.ok((await admin.pttl("bull:limited:limiter")) > 1e5);
  assert.deepEqual(limitedJobs.length, 2);
}

// A job that no worker holds a lock of is found and done by another one.
async function stalledJobs() {
  const producer = queueOf("stalled");
  await producer.add("job", { text: "found" }, { jobId: "lost" });
  // As a worker that ends right after it has taken the job.
  assert.equal(await admin.rpoplpush("bull:stalled:wait", "bull:stalled:active"), "lost");
  const { workers } = work("stalled", async (job) => job.data.text, {
    settings: { stalledInterval: 30 },
  });
  const stalled = new Promise((resolve) => {
    for (const worker of workers) worker.on("stalled", resolve);
  });
  assert.equal((await stalled).id, "lost");
  await waitForCounts(producer, { completed: 1 });
  assert.equal((await producer.getJob("lost")).returnvalue, "found");
}

await admin.flushall();
await admin.script("FLUSH");
await Promise.all([
  plainJobs(), orderedJobs(), delayedAndFailingJobs(), repeatedAndLimitedJobs(), stalledJobs(),
]);
for (const name of ["ordered", "failing"]) {
  const queue = queueOf(name);
  await queue.pause();
  await queue.obliterate();
  const left = await admin.keys(`bull:${name}:*`);
  assert.deepEqual(left.filter((key) => !key.endsWith(":stalled-check")), []);
}
await Promise.all(open.map((queue) => queue.close()));
await admin.quit();
console.log("bull ok");
