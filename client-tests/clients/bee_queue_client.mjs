// Runs jobs of Bee-Queue on two workers: plain, delayed, retried, removed and stalled ones.
import { assert, port, require, until } from "./clients.mjs";

const Queue = require("bee-queue");
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

// A queue that adds jobs, and two workers of it.
async function start(name, handler, options) {
  const begun = [];
  const workers = [0, 1].map(() => queueOf(name, options));
  const queue = queueOf(name, { isWorker: false });
  for (const worker of workers) {
    await worker.ready();
    worker.process(5, async (job) => {
      begun.push(job.id);
      return handler(job);
    });
  }
  await queue.ready();
  return { queue, begun, workers };
}

async function waitForHealth(queue, expected) {
  await until(async () => {
    const { newestJob, ...counts } = await queue.checkHealth();
    const found = Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0));
    return JSON.stringify(found) === JSON.stringify(expected);
  }, `${queue.name}: ${JSON.stringify(expected)}`);
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const sum = (items) => items.reduce((total, n) => total + n, 0);

async function plainJobs() {
  const { queue, begun } = await start("plain", async ({ data }) => data.x + data.y);
  const results = new Map();
  const all = new Promise((resolve) => {
    queue.on("job succeeded", (id, result) => {
      assert.ok(!results.has(id), `job ${id} has succeeded twice`);
      results.set(id, result);
      if (results.size === 220) resolve();
    });
  });
  const single = await Promise.all(
    numbers(20).map((n) => queue.createJob({ x: n, y: 1000 }).save()),
  );
  // A pipeline of EVALSHA.
  const bulk = numbers(200).map((n) => queue.createJob({ x: n, y: 2000 }));
  assert.equal((await queue.saveAll(bulk)).size, 0);
  await all;
  assert.equal(begun.length, 220);
  for (const { id, data } of [...single, ...bulk]) assert.equal(results.get(id), data.x + data.y);
  await waitForHealth(queue, { succeeded: 220 });
  // A job with the id of another one is not added.
  const first = await queue.createJob({ x: 1, y: 1 }).setId("mine").save();
  assert.equal(first.id, "mine");
  assert.equal((await queue.createJob({ x: 2, y: 2 }).setId("mine").save()).id, null);
  await waitForHealth(queue, { succeeded: 221 });
  await queue.removeJob("mine");
  await waitForHealth(queue, { succeeded: 220 });
  assert.equal(await queue.getJob("mine"), null);
  const stored = await queueOf("plain", { isWorker: false }).getJob(bulk[7].id);
  assert.deepEqual(stored.data, { x: 7, y: 2000 });
}

async function delayedJobs() {
  const options = { activateDelayedJobs: true, delayedDebounce: 1 };
  const { queue, begun } = await start("delayed", async () => {}, options);
  const now = Date.now();
  for (const delay of [300, 100, 200]) {
    await queue.createJob({}).setId(`d${delay}`).delayUntil(now + delay).save();
  }
  await queue.createJob({}).setId("late").delayUntil(now + 1e9).save();
  await queue.createJob({}).setId("none").save();
  await waitForHealth(queue, { succeeded: 4, delayed: 1 });
  assert.deepEqual([...begun].sort(), ["d100", "d200", "d300", "none"]);
  assert.deepEqual(await admin.zrange("bq:delayed:delayed", 0, -1), ["late"]);
}

async function failingJobs() {
  const tries = new Map();
  const options = { activateDelayedJobs: true, delayedDebounce: 1 };
  const { queue } = await start("failing", async (job) => {
    const count = (tries.get(job.id) ?? 0) + 1;
    tries.set(job.id, count);
    if (count <= job.data.failures) throw new Error(`failure ${count}`);
  }, options);
  const retried = [];
  queue.on("job retrying", (id) => retried.push(id));
  for (const n of numbers(20)) {
    const job = queue.createJob({ failures: n % 5 }).setId(`j${n}`).retries(3);
    await (n < 10 ? job : job.backoff("fixed", 10)).save();
  }
  await waitForHealth(queue, { succeeded: 16, failed: 4 });
  assert.equal(sum([...tries.values()]), 4 * (1 + 2 + 3 + 4 + 4));
  await until(() => retried.length === 4 * (0 + 1 + 2 + 3 + 3), "the events of all retries");
  const failed = await queue.getJobs("failed", { size: 100 });
  assert.deepEqual(failed.map((job) => job.id).sort(), ["j14", "j19", "j4", "j9"]);
}

// A job that a worker took and never finished is found by the check for stalled jobs.
async function stalledJobs() {
  const producer = queueOf("stalled", { isWorker: false });
  await producer.createJob({ text: "found" }).setId("lost").save();
  // As a worker that ends right after it has taken the job.
  assert.equal(await admin.rpoplpush("bq:stalled:waiting", "bq:stalled:active"), "lost");
  const worker = queueOf("stalled", { stallInterval: 20 });
  const stalled = new Promise((resolve) => worker.on("stalled", resolve));
  const succeeded = new Promise((resolve) => {
    worker.on("succeeded", (job, result) => resolve([job.id, result]));
  });
  await worker.ready();
  worker.process(async (job) => job.data.text);
  worker.checkStalledJobs(10, (error) => assert.equal(error, null));
  assert.equal(await stalled, "lost");
  assert.deepEqual(await succeeded, ["lost", "found"]);
  await waitForHealth(producer, { succeeded: 1 });
}

await admin.flushall();
await admin.script("FLUSH");
await Promise.all([plainJobs(), delayedJobs(), failingJobs(), stalledJobs()]);
await open[0].destroy();
assert.deepEqual(await admin.keys("bq:plain:*"), []);
await Promise.all(open.map((queue) => queue.close()));
await admin.quit();
console.log("bee-queue ok");
