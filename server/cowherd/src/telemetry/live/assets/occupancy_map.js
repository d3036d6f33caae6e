// The occupancy map of the arena: one small square for each cell, painted on a canvas.

import { hasUndoLog } from "./checkpoints.js";
import { byId, bytes, count, counted, duration, make, percent, setText } from "./format.js";

const [USED, AT_FORK, WRITTEN] = [1, 2, 4];
const HEATS = 15;
const PITCHES = [22, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4];
const FEWEST = 64;
// How long the last map of a checkpoint stays after its end.
const HOLD_MAP_MS = 4000;

// What the isolation of a checkpoint does to the data that clients change meanwhile.
const COW = {
  meaning: "All data lives in this memory. A checkpoint reads it from start to end and writes it "
    + "to the image; the first write to a page after the fork makes the kernel copy that page.",
  legend: "pages copied since the fork (larger: more)",
  done: "copied",
};
const UNDO = {
  meaning: "All data lives in this memory, which a checkpoint shares, reads from start to end and "
    + "writes to the image; before a client changes a block that is not written yet, the old bytes "
    + "go into the undo log.",
  legend: "blocks captured since the fork (larger: more)",
  done: "captured",
};

const heat = (cell) => cell >> 4;

function decode(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// A colour between two of the form #rrggbb.
function mix(from, to, share) {
  const parts = (colour) => colour.slice(1).match(/../g).map((two) => parseInt(two, 16));
  const [one, other] = [parts(from), parts(to)];
  return `rgb(${one.map((part, i) => Math.round(part + (other[i] - part) * share))})`;
}

export class OccupancyMap {
  constructor() {
    this.canvas = byId("map");
    this.context = this.canvas.getContext("2d");
    this.cells = new Uint8Array();
    this.perCell = 1;
    this.state = null;
    this.running = null;
    this.last = null;
    this.heldMap = null;
    this.cursor = null;
    this.byKey = false;
    this.words = COW;
    this.readColours();
    this.buildLegend();
    this.attach();
  }

  attach() {
    new ResizeObserver(() => this.draw()).observe(this.canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.draw();
    });
    const point = (event) => this.moveTo(this.cellAt(event), false);
    this.canvas.addEventListener("pointermove", point);
    this.canvas.addEventListener("pointerdown", point);
    this.canvas.addEventListener("pointerleave", () => this.moveTo(null, false));
    this.canvas.addEventListener("focus", () => {
      if (this.canvas.matches(":focus-visible")) this.moveTo(this.cursor ?? 0, true);
    });
    this.canvas.addEventListener("blur", () => this.moveTo(null, false));
    this.canvas.addEventListener("keydown", (event) => this.press(event));
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = {
      free: colour("cell-free"), used: colour("cell-used"), written: colour("cell-written"),
      fresh: colour("cell-new"), freed: colour("cell-freed"), ink: colour("ink"),
      heat: Array.from({ length: HEATS + 1 }, (_, i) => {
        return mix(colour("heat-low"), colour("heat-high"), Math.max(0, i - 1) / 11);
      }),
    };
  }

  buildLegend() {
    const items = [
      ["free", "free"],
      ["used", "in use"],
      ["written", "in use, already written by the checkpoint"],
      ["heat", this.words.legend],
      ["fresh", "new since the fork, not in this checkpoint"],
      ["freed", "freed since the fork, kept for the checkpoint"],
    ];
    byId("legend").replaceChildren(...items.map(([kind, label]) => {
      return make("li", { class: kind }, make("i", { "aria-hidden": "true" }), label);
    }));
  }

  setState(state) {
    this.state = state;
    const words = state.undo ? UNDO : COW;
    if (words !== this.words) {
      this.words = words;
      this.buildLegend();
      this.showCheckpointState();
    }
    setText(byId("arena-meaning"), words.meaning);
    this.showSummary();
    this.explain();
  }

  setMap(map) {
    const cells = decode(map.cells);
    this.perCell = map.chunks_per_cell;
    const ofCheckpoint = (some) => some.some((cell) => cell & AT_FORK);
    if (!this.heldMap && ofCheckpoint(this.cells) && !ofCheckpoint(cells)) {
      // The map stays for a moment, so that a short checkpoint can be seen too.
      this.heldMap = { timer: setTimeout(() => this.show(this.heldMap.next), HOLD_MAP_MS) };
    }
    if (this.heldMap && !ofCheckpoint(cells)) this.heldMap.next = cells;
    else this.show(cells);
  }

  show(cells) {
    if (this.heldMap) clearTimeout(this.heldMap.timer);
    this.heldMap = null;
    this.cells = cells;
    this.showCheckpointState();
    this.draw();
    this.showSummary();
    this.explain();
  }

  setCheckpoint(running, last) {
    this.running = running;
    this.last = last;
    this.showCheckpointState();
  }

  showCheckpointState() {
    const { running, last } = this;
    const bar = byId("checkpoint-bar");
    const line = byId("checkpoint-now");
    bar.hidden = !running;
    document.title = "Cowherd";
    if (running) {
      const share = running.chunks ? Math.min(1, running.chunks_done / running.chunks) : 0;
      document.title = `${percent(share)} written, Cowherd`;
      bar.firstElementChild.style.transform = `scaleX(${share})`;
      bar.setAttribute("aria-valuenow", Math.round(share * 100));
      setText(line, `Checkpoint ${running.number} runs: ${percent(share)} written after `
        + `${duration(running.duration_seconds)}; ${this.copied(running)}.`);
    } else if (last && this.heldMap) {
      setText(line, `Checkpoint ${last.number} has just ended; this is how it left the arena: `
        + `${this.copied(last)}.`);
    } else if (last) {
      setText(line, `No checkpoint runs. The last, number ${last.number}, `
        + `${last.status === "ok" ? "took" : `${last.status} after`} `
        + `${duration(last.duration_seconds)}; ${this.copied(last)}.`);
    } else {
      setText(line, "No checkpoint has run yet.");
    }
  }

  copied(checkpoint) {
    if (hasUndoLog(checkpoint)) {
      const { captures, captured_bytes: size, log_bytes: log } = checkpoint.undo;
      if (!captures) return "nothing was captured";
      return `${counted(captures, "block")} captured (${bytes(size)}; the log came to `
        + `${bytes(log)})`;
    }
    const { faults, copied_bytes: size } = checkpoint.cow;
    if (!faults) return "no page was copied";
    return `${counted(faults, "page")} copied (${bytes(size)})`;
  }

  showSummary() {
    if (!this.state) return;
    const { used_chunks: used, capacity_bytes: capacity, chunk_bytes: chunk } = this.state.arena;
    const total = Math.floor(capacity / chunk);
    setText(byId("arena-summary"), `${count(used)} of ${counted(total, "chunk")} in use, `
      + `${bytes(chunk)} each`);
  }

  // Cells drawn: up to the last that is in use, in steps, so that the map seldom jumps.
  drawn() {
    const last = Math.max(FEWEST, this.cells.findLastIndex((cell) => cell !== 0) + 1);
    const step = 2 ** Math.floor(Math.log2(last)) / 8;
    return Math.min(Math.ceil(last / step) * step, this.cells.length);
  }

  // The largest squares with which the map is at most about 300 pixels high.
  layout() {
    const shown = this.drawn();
    const width = this.canvas.parentElement.clientWidth;
    const highest = width < 480 ? 330 : 300;
    const fits = (pitch) => Math.ceil(shown / Math.floor(width / pitch)) * pitch <= highest;
    const pitch = PITCHES.find(fits) ?? PITCHES.at(-1);
    const columns = Math.max(1, Math.floor(width / pitch));
    return { shown, width, pitch, columns, rows: Math.ceil(shown / columns) };
  }

  draw() {
    const grid = this.layout();
    this.grid = grid;
    if (!grid.width) return;
    const scale = devicePixelRatio || 1;
    const [width, height] = [grid.width, Math.max(1, grid.rows) * grid.pitch];
    const [pixels, lines] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== pixels || this.canvas.height !== lines) {
      this.canvas.width = pixels;
      this.canvas.height = lines;
      this.canvas.style.height = `${height}px`;
    }
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.context.clearRect(0, 0, width, height);
    for (let i = 0; i < grid.shown; i += 1) this.paint(i);
    this.paintCursor();
    this.showUndrawn();
  }

  place(index) {
    const { columns, pitch } = this.grid;
    return [(index % columns) * pitch, Math.floor(index / columns) * pitch];
  }

  paint(index) {
    const { context, colours } = this;
    const { pitch } = this.grid;
    const cell = this.cells[index];
    const [x, y] = this.place(index);
    const size = pitch - (pitch > 6 ? 2 : 1);
    const [used, atFork] = [cell & USED, cell & AT_FORK];
    const isFresh = used && !atFork && this.isCheckpointing();
    context.fillStyle = !used && !atFork ? colours.free
      : cell & WRITTEN ? colours.written : colours.used;
    if (!used && atFork) context.fillStyle = colours.freed;
    if (isFresh) context.fillStyle = colours.fresh;
    context.fillRect(x, y, size, size);
    const warmth = heat(cell);
    if (warmth === 0) return;
    // From a third of the square to nearly all of it.
    const inner = Math.max(2, Math.round(size * (0.34 + 0.5 * Math.min(1, warmth / 10))));
    const edge = (size - inner) / 2;
    context.fillStyle = colours.heat[warmth];
    context.fillRect(x + edge, y + edge, inner, inner);
  }

  isCheckpointing() {
    return this.running !== null || this.heldMap !== null;
  }

  paintCursor() {
    if (this.cursor === null || this.cursor >= this.grid.shown) return;
    const [x, y] = this.place(this.cursor);
    const size = this.grid.pitch - (this.grid.pitch > 6 ? 2 : 1);
    this.context.strokeStyle = this.colours.ink;
    this.context.lineWidth = 2;
    this.context.strokeRect(x + 1, y + 1, size - 2, size - 2);
  }

  showUndrawn() {
    const rest = this.cells.length - this.grid.shown;
    const chunk = this.state?.arena.chunk_bytes ?? 0;
    const cell = this.perCell > 1 ? `One square stands for ${this.perCell} chunks. ` : "";
    const more = rest > 0
      ? `Not drawn: ${bytes(rest * this.perCell * chunk)} more, all of it free.` : "";
    setText(byId("map-rest"), cell + more);
    this.canvas.setAttribute("aria-valuemax", Math.max(0, this.grid.shown - 1));
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { columns, pitch, shown } = this.grid;
    const column = Math.floor((event.clientX - box.left) / pitch);
    const row = Math.floor((event.clientY - box.top) / pitch);
    const index = row * columns + column;
    return column >= 0 && column < columns && row >= 0 && index < shown ? index : null;
  }

  press(event) {
    const { columns, shown } = this.grid;
    const now = this.cursor ?? 0;
    const target = {
      ArrowLeft: now - 1, ArrowRight: now + 1, ArrowUp: now - columns, ArrowDown: now + columns,
      Home: 0, End: shown - 1, PageUp: now - columns * 5, PageDown: now + columns * 5,
    }[event.key];
    if (target === undefined || shown === 0) return;
    event.preventDefault();
    this.moveTo(Math.min(shown - 1, Math.max(0, target)), true);
  }

  moveTo(index, byKey) {
    // A pointer that leaves the map does not clear a cell chosen by keyboard.
    if (index === null && !byKey && this.byKey && document.activeElement === this.canvas) return;
    this.byKey = byKey;
    this.cursor = index;
    if (this.grid) this.draw();
    this.explain();
  }

  explain() {
    if (this.cursor === null || this.cursor >= this.cells.length) {
      setText(byId("cell"), "Point at a cell, or use the arrow keys on the map, to see its state.");
      return;
    }
    const text = this.meaning(this.cursor);
    setText(byId("cell"), text);
    this.canvas.setAttribute("aria-valuenow", this.cursor);
    this.canvas.setAttribute("aria-valuetext", text);
  }

  meaning(index) {
    const cell = this.cells[index];
    const first = index * this.perCell;
    const last = first + this.perCell - 1;
    const many = this.perCell > 1 ? `s ${count(first)} to ${count(last)}` : ` ${count(first)}`;
    const chunk = this.state?.arena.chunk_bytes ?? 0;
    const where = `, ${bytes(first * chunk)} from the start`;
    const [used, atFork, written] = [USED, AT_FORK, WRITTEN].map((bit) => (cell & bit) !== 0);
    const uses = used ? "in use" : "free";
    let checkpoint = "";
    if (this.isCheckpointing()) {
      if (atFork && written) checkpoint = "; the checkpoint has written it";
      else if (atFork) checkpoint = "; the checkpoint has yet to write it";
      else if (used) checkpoint = "; not in use at the fork, so this checkpoint leaves it out";
      if (!used && atFork) checkpoint += ", though its data is gone by now";
    }
    const changed = used || atFork ? this.changed(heat(cell)) : "";
    return `Chunk${many}${where}: ${uses}${checkpoint}${changed}.`;
  }

  // How much of a cell was copied or captured.
  changed(warmth) {
    const { undo, arena } = this.state ?? {};
    const unit = undo ? "block" : "page";
    const { done } = this.words;
    if (warmth === 0) return this.isCheckpointing() ? `; no ${unit} of it was ${done}` : "";
    const size = undo ? ` of ${bytes(undo.block_bytes)}`
      : arena ? ` of ${bytes(arena.cow_page_bytes)}` : "";
    const [low, high] = [2 ** (warmth - 1), 2 ** warmth - 1];
    if (warmth === HEATS) return `; ${count(low)} or more ${unit}s${size} were ${done}`;
    if (low === high) return `; 1 ${unit}${size} was ${done}`;
    return `; ${count(low)} to ${count(high)} ${unit}s${size} were ${done}`;
  }
}
