// Runs BullMQ's kinds of jobs on two workers: delayed, prioritized, repeated, failing, rate limited
// ones and flows.
import { assert, port, require, until, waitForCounts } from "./clients.mjs";

const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");
const { Redis } = require("ioredis");

const DEADLINE = 30_000;
const connection = { host: "127.0.0.1", port };
const admin = new Redis({ port });
const open = [];

function track(part) {
  part.on("error", (error) => {
    console.error(error);
    process.exit(1);
  });
  open.push(part);
  return part;
}

const queueOf = (name, options) => track(new Queue(name, { connection, ...options }));

// Two workers of one queue, and the job ids in the order in which their processor began.
function work(name, processor, options) {
  const begun = [];
  const workers = [0, 1].map((n) => {
    const run = (job, token) => {
      begun.push(job.id);
      return processor(job, n, token);
    };
    return track(new Worker(name, run, { connection, ...options }));
  });
  return { begun, workers };
}

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const sorted = (ids) => [...ids].sort((a, b) => a - b);

// Each of 300 jobs runs once, on one of both workers, and its result arrives as an event.
async function plainJobs() {
  const queue = queueOf("plain");
  const events = track(new QueueEvents("plain", { connection }));
  await events.waitUntilReady();
  const results = new Map();
  const all = new Promise((resolve) => {
    events.on("completed", ({ jobId, returnvalue }) => {
      assert.ok(!results.has(jobId), `job ${jobId} has completed twice`);
      results.set(jobId, returnvalue);
      if (results.size === 301) resolve();
    });
  });
  const { begun } = work("plain", async (job, n) => {
    await job.updateProgress(50);
    await job.log(`worker ${n}`);
    return { square: job.data.number ** 2 };
  }, { concurrency: 4 });
  const single = await queue.add("single", { number: 7, text: "ü\0\n" }, { jobId: "mine" });
  // An id that exists is not added again.
  assert.equal((await queue.add("single", { number: 8 }, { jobId: "mine" })).id, "mine");
  assert.deepEqual(await single.waitUntilFinished(events, DEADLINE), { square: 49 });
  const added = await queue.addBulk(
    numbers(300).map((number) => ({ name: "bulk", data: { number } })),
  );
  await all;
  await waitForCounts(queue, { completed: 301 });
  assert.equal(begun.length, 301);
  assert.equal(new Set(begun).size, 301);
  for (const [number, job] of added.entries()) {
    assert.deepEqual(results.get(job.id), { square: number ** 2 });
  }
  const job = await queue.getJob("mine");
  assert.deepEqual(job.data, { number: 7, text: "ü\0\n" });
  assert.equal(job.progress, 50);
  assert.equal(await job.getState(), "completed");
  assert.match((await queue.getJobLogs("mine")).logs[0], /^worker [01]$/);
  assert.equal((await queue.clean(0, 1000, "completed")).length, 301);
  await waitForCounts(queue, {});
}

// Jobs of a paused queue start by priority, those without one first.
async function prioritizedJobs() {
  const queue = queueOf("prioritized");
  await queue.pause();
  for (const [n, priority] of [5, 1, 3, 0, 2, 4, 0].entries()) {
    await queue.add("job", {}, { priority, jobId: `p${priority}-${n}` });
  }
  await queue.add("last", { priority: 9 }, { priority: 9, jobId: "p9" });
  await (await queue.getJob("p9")).changePriority({ priority: 2097152 });
  assert.deepEqual(await queue.getCountsPerPriority([1, 2, 9, 2097152]), {
    1: 1, 2: 1, 9: 0, 2097152: 1,
  });
  const { begun, workers } = work("prioritized", async () => {});
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  // Only one worker, so that the order is known.
  await workers[1].close();
  await queue.resume();
  await waitForCounts(queue, { completed: 8 });
  assert.deepEqual(begun.map((id) => id.slice(0, 2)), "p0 p0 p1 p2 p3 p4 p5 p9".split(" "));
}

// Delayed jobs wait in a sorted set, and start by their delays; one is promoted at once.
async function delayedJobs() {
  const queue = queueOf("delayed");
  const delays = [400, 100, 300, 200];
  for (const delay of delays) {
    await queue.add("job", { added: Date.now(), delay }, { delay, jobId: `d${delay}` });
  }
  const promoted = await queue.add("late", { added: 0, delay: 0 }, { delay: 1e9, jobId: "d0" });
  const removed = await queue.add("never", {}, { delay: 1e9 });
  assert.equal(await removed.getState(), "delayed");
  await removed.remove();
  const { begun } = work("delayed", async (job) => {
    // BullMQ reads the same clock.
    assert.ok(Date.now() >= job.data.added + job.data.delay, `job ${job.id} started early`);
  });
  await promoted.promote();
  await waitForCounts(queue, { completed: 5 });
  assert.deepEqual([...begun].sort(), ["d0", "d100", "d200", "d300", "d400"]);
}

// Jobs that fail are tried again, with and without a backoff, until their attempts are used up.
async function failingJobs() {
  const queue = queueOf("failing");
  const attempts = new Map();
  work("failing", async (job) => {
    const attempt = (attempts.get(job.id) ?? 0) + 1;
    attempts.set(job.id, attempt);
    assert.equal(job.attemptsMade, attempt - 1);
    if (attempt <= job.data.failures) throw new Error(`failure ${attempt}`);
    return attempt;
  }, { concurrency: 3 });
  const backoff = { type: "exponential", delay: 10 };
  for (const failures of numbers(20)) {
    const options = { attempts: 4, backoff: failures % 2 ? backoff : undefined };
    await queue.add("job", { failures: failures % 5 }, options);
  }
  await waitForCounts(queue, { completed: 16, failed: 4 });
  assert.equal([...attempts.values()].reduce((sum, n) => sum + n), 4 * (1 + 2 + 3 + 4 + 4));
  const failed = await queue.getFailed();
  for (const job of failed) {
    assert.equal(job.failedReason, "failure 4");
    assert.equal(job.stacktrace.length, 4);
    assert.equal(job.attemptsMade, 4);
  }
  // The fifth attempt succeeds.
  await failed[0].retry();
  await waitForCounts(queue, { completed: 17, failed: 3 });
  await queue.retryJobs();
  await waitForCounts(queue, { completed: 20 });
  for (const job of await queue.getCompleted()) {
    assert.equal(job.returnvalue, job.data.failures + 1);
  }
}

// No more jobs start within one period than the limiter allows, whichever worker runs them.
async function rateLimitedJobs() {
  // The period ends only when this program removes its key.
  const options = { limiter: { max: 3, duration: 1e6 }, maximumRateLimitDelay: 20 };
  const queue = queueOf("limited");
  await queue.addBulk(numbers(10).map((number) => ({ name: "job", data: { number } })));
  const { begun } = work("limited", async () => {}, options);
  for (const completed of [3, 6, 9]) {
    await waitForCounts(queue, { completed, waiting: 10 - completed });
    assert.equal(await admin.get("bull:limited:limiter"), "3");
    assert.ok((await queue.getRateLimitTtl(3)) > 1e5);
    await queue.removeRateLimitKey();
  }
  await waitForCounts(queue, { completed: 10 });
  assert.deepEqual(sorted(begun), numbers(10).map((n) => String(n + 1)));
  // A worker that limits itself puts its job back, and the job completes later.
  const again = queueOf("again");
  let limited = 0;
  const { begun: tries } = work("again", async (job, n, token) => {
    if (++limited === 1) {
      await again.rateLimit(50);
      throw Worker.RateLimitError();
    }
  }, { limiter: { max: 100, duration: 50 } });
  await again.add("job", {});
  await waitForCounts(again, { completed: 1 });
  assert.deepEqual(tries, ["1", "1"]);
}

// A scheduler adds a job for each period until its limit; each of them runs once.
async function repeatedJobs() {
  const queue = queueOf("repeated");
  const { begun } = work("repeated", async (job) => job.data.text);
  const template = { name: "tick", data: { text: "tock" }, opts: { removeOnComplete: false } };
  await queue.upsertJobScheduler("ticks", { every: 50, limit: 4 }, template);
  await queue.upsertJobScheduler("never", { pattern: "0 0 1 1 *" }, template);
  await until(async () => (await queue.getCompletedCount()) === 4, "four repeated jobs");
  const never = await queue.getJobScheduler("never");
  assert.equal(never.pattern, "0 0 1 1 *");
  assert.deepEqual(never.template.data, { text: "tock" });
  assert.equal(await queue.removeJobScheduler("never"), true);
  await waitForCounts(queue, { completed: 4 });
  assert.equal(begun.length, 4);
  assert.equal(new Set(begun).size, 4);
  assert.ok((await queue.getCompleted()).every((job) => job.returnvalue === "tock"));
}

// A job of a worker that does not renew its lock goes to another worker, and only the second one
// can complete the job.
async function stalledJobs() {
  const queue = queueOf("stalled");
  let release;
  const hangs = new Promise((resolve) => (release = resolve));
  const started = new Promise((resolve) => {
    const options = { connection, lockDuration: 30, skipLockRenewal: true, skipStalledCheck: true };
    const worker = new Worker("stalled", async () => {
      resolve(worker);
      await hangs;
      return "too late";
    }, options);
  });
  await queue.add("job", {});
  const slow = await started;
  open.push(slow);
  const refused = new Promise((resolve) => slow.on("error", resolve));
  const other = track(
    new Worker("stalled", async () => "in time", { connection, stalledInterval: 30 }),
  );
  const stalled = new Promise((resolve) => other.on("stalled", resolve));
  assert.equal(await stalled, "1");
  await waitForCounts(queue, { completed: 1 });
  release();
  assert.match((await refused).message, /Missing lock for job 1/);
  const [job] = await queue.getCompleted();
  assert.equal(job.returnvalue, "in time");
  assert.equal(job.stalledCounter, 1);
}

// Parents run after all of their children, and see their results, in three generations.
async function flows() {
  const [parents, children] = [queueOf("parents"), queueOf("children")];
  const producer = track(new FlowProducer({ connection }));
  const { begun: begunChildren } = work("children", async (job) => {
    if (job.data.fails) throw new Error("no result");
    const below = Object.values(await job.getChildrenValues());
    return below.reduce((sum, value) => sum + value, job.data.value);
  }, { concurrency: 2 });
  const { begun: begunParents } = work("parents", async (job) => {
    const values = Object.values(await job.getChildrenValues());
    const { ignored } = job.data.counts ? await job.getDependenciesCount({ ignored: true }) : {};
    return { sum: values.reduce((sum, value) => sum + value, 0), count: values.length, ignored };
  });
  const leaf = (value) => ({ name: "leaf", queueName: "children", data: { value } });
  const trees = numbers(10).map((n) => ({
    name: "parent",
    queueName: "parents",
    data: {},
    children: [
      leaf(n),
      leaf(2 * n),
      { ...leaf(1000), name: "middle", children: [leaf(1), leaf(2)] },
    ],
  }));
  const added = await producer.addBulk(trees);
  await waitForCounts(parents, { completed: 10 });
  await waitForCounts(children, { completed: 50 });
  for (const [n, { job }] of added.entries()) {
    const { returnvalue } = await parents.getJob(job.id);
    assert.deepEqual(returnvalue, { sum: 3 * n + 1003, count: 3 });
  }
  assert.equal(new Set(begunParents).size, 10);
  assert.equal(begunParents.length, 10);
  assert.equal(new Set(begunChildren).size, 50);
  assert.equal(begunChildren.length, 50);

  const child = { name: "leaf", queueName: "children", data: { fails: true } };
  // The first parent fails with its child, the second ignores that failure.
  await producer.addBulk([
    {
      name: "fails", queueName: "parents", data: {},
      children: [{ ...child, opts: { failParentOnFailure: true } }],
    },
    {
      name: "ignores", queueName: "parents", data: { counts: true },
      children: [{ ...child, opts: { ignoreDependencyOnFailure: true } }, leaf(5)],
    },
  ]);
  await waitForCounts(parents, { completed: 11, failed: 1 });
  await waitForCounts(children, { completed: 51, failed: 2 });
  const [failed] = await parents.getFailed();
  assert.match(failed.failedReason, /^child bull:children:.* failed/);
  const [ignores] = await parents.getCompleted(0, 0);
  assert.equal(ignores.returnvalue.sum, 5);
  assert.equal(ignores.returnvalue.ignored, 1);
}

// Obliterating a queue removes all its keys, by a script that collects their names itself.
async function obliterate() {
  for (const name of ["plain", "prioritized", "delayed", "failing", "limited", "parents"]) {
    await queueOf(name).obliterate({ force: true });
    const left = await admin.keys(`bull:${name}:*`);
    assert.deepEqual(left.filter((key) => !/:(stalled-check|limiter)$/.test(key)), [], name);
  }
}

await admin.flushall();
await admin.script("FLUSH");
await Promise.all([
  plainJobs(), prioritizedJobs(), delayedJobs(), failingJobs(), rateLimitedJobs(), repeatedJobs(),
  stalledJobs(), flows(),
]);
for (const part of open.splice(0).reverse()) await part.close();
await obliterate();
for (const part of open) await part.close();
await admin.quit();
console.log("bullmq ok");
