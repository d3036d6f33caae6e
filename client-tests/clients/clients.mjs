// Shared by both Node.js scripts: folder of the libraries, and port of the server.
import { createRequire } from "node:module";
import { join } from "node:path";

const folder = process.env.COWHERD_CLIENT_TOOLS;
export const require = createRequire(join(folder, "package.json"));
export const port = Number(process.argv[2]);
export { strict as assert } from "node:assert";
