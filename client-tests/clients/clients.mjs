// Shared by the Node.js scripts: folder of the libraries, and port of the server.
import { createRequire } from "node:module";
import { join } from "node:path";

const folder = process.env.COWHERD_CLIENT_TOOLS;
export const require = createRequire(join(folder, "package.json"));
export const port = Number(process.argv[2]);
export { strict as assert } from "node:assert";

// Polls until the condition holds; fails after half a minute.
export async function until(condition, what) {
  const end = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// Waits until the counts of a queue's jobs are as given; the other counts must be 0. For BullMQ and
// Bull.
export async function waitForCounts(queue, expected) {
  let found;
  await until(async () => {
    const counts = Object.entries(await queue.getJobCounts()).filter(([, count]) => count > 0);
    found = JSON.stringify(Object.fromEntries(counts.sort()));
    return found === JSON.stringify(expected);
  }, `${queue.name}: ${JSON.stringify(expected)}`).catch((error) => {
    throw new Error(`${error.message}, found ${found}`);
  });
}
