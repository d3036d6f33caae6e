// Shared by both Node.js scripts: folder of the libraries, and port of the server.
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
