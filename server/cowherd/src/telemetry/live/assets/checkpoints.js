// The last checkpoints as a table, the newest first.

import {
  byId, bytes, count, counted, duration, make, moment, percent, ratio, speed, setText,
} from "./format.js";

const SHORT = 10;
const KEPT = 64;
const CAUSES = {
  safepoint: "safepoint", fork: "fork", "cow-fault": "copy-on-write", "undo-capture": "undo log",
  other: "other",
};
const STALL = "and the longest stall is the slowest command with what slowed it.";
const COW = {
  meaning: `What each checkpoint cost the clients while it ran: amplification is bytes copied for `
    + `each byte written, ${STALL}`,
  heads: ["Faults", "Copied"],
};
const UNDO = {
  meaning: `What each checkpoint cost the clients while it ran: blocks captured with the most that `
    + `the undo log took, amplification is bytes captured for each byte written, ${STALL}`,
  heads: ["Captures", "Captured"],
};

export function hasUndoLog(checkpoint) {
  return checkpoint.isolation === "undo-log";
}

function isSame(one, other) {
  return one.number === other.number && one.started_ms === other.started_ms;
}

// What was copied or captured: label and text of the columns that depend on the isolation.
function changed(checkpoint) {
  const { cow, undo } = checkpoint;
  const [number, size] = (hasUndoLog(checkpoint) ? UNDO : COW).heads;
  if (!hasUndoLog(checkpoint)) {
    return [
      [number, count(cow.faults), "number"],
      [size, bytes(cow.copied_bytes), "number"],
      ["Amplification", ratio(checkpoint.cow_amplification), "number"],
    ];
  }
  return [
    [number, count(undo.captures), "number"],
    [size, [bytes(undo.captured_bytes), `log ${bytes(undo.log_bytes)}`], "number"],
    ["Amplification", ratio(checkpoint.undo_amplification), "number"],
  ];
}

// Label and text of each column.
function columns(checkpoint) {
  const running = checkpoint.status === "running";
  const written = checkpoint.chunks_done / Math.max(1, checkpoint.chunks);
  const stall = checkpoint.longest_stall;
  return [
    ["No.", checkpoint.number ? count(checkpoint.number) : "–", "number"],
    ["Started", moment(checkpoint.started_ms), ""],
    ["Status", running ? `running, ${percent(written)}` : checkpoint.status, "status"],
    ["Fork", checkpoint.background ? duration(checkpoint.fork_seconds) : "–", "number"],
    ["Duration", duration(checkpoint.duration_seconds), "number"],
    ...changed(checkpoint),
    ["Longest stall", stall ? [duration(stall.seconds), `${stall.command}, ${CAUSES[stall.cause]}`]
      : "–", "stall"],
    ["Speed", speed(checkpoint.bytes_per_second), "number"],
    ["Image", checkpoint.image_bytes ? bytes(checkpoint.image_bytes) : "–", "number"],
  ];
}

export class Checkpoints {
  constructor() {
    this.ended = [];
    this.running = null;
    this.showsAll = false;
    this.body = byId("table").tBodies[0];
    byId("more").addEventListener("click", () => {
      this.showsAll = !this.showsAll;
      this.draw();
    });
  }

  setState(state) {
    const words = state.undo ? UNDO : COW;
    setText(byId("checkpoints-meaning"), words.meaning);
    ["head-number", "head-size"].forEach((id, i) => setText(byId(id), words.heads[i]));
    const unit = state.undo ? "captured" : "copied";
    byId("head-ratio").title = `amplification: bytes ${unit} for each byte written`;
  }

  set(checkpoints) {
    this.running = checkpoints.running;
    this.ended = checkpoints.ended;
    this.draw();
  }

  progress(checkpoint) {
    if (this.ended.some((one) => isSame(one, checkpoint))) return;
    const isNew = !this.running || !isSame(this.running, checkpoint);
    this.running = checkpoint;
    if (isNew) this.draw();
    else this.body.firstElementChild.replaceWith(this.row(checkpoint));
  }

  end(checkpoint) {
    if (this.running && this.running.number === checkpoint.number) this.running = null;
    if (this.ended.some((one) => isSame(one, checkpoint))) return;
    this.ended.push(checkpoint);
    if (this.ended.length > KEPT) this.ended.shift();
    this.draw();
  }

  // The oldest first.
  all() {
    return this.running ? [...this.ended, this.running] : this.ended;
  }

  draw() {
    const all = this.all().toReversed();
    const shown = this.showsAll ? all : all.slice(0, SHORT);
    this.body.replaceChildren(...shown.flatMap((checkpoint) => {
      const row = this.row(checkpoint);
      return checkpoint.error ? [row, this.errorRow(checkpoint)] : [row];
    }));
    byId("table").hidden = all.length === 0;
    byId("checkpoints-empty").hidden = all.length > 0;
    byId("more").hidden = all.length <= SHORT;
    setText(byId("more"), this.showsAll ? `Show only the last ${SHORT}` : `Show all ${all.length}`);
    const failed = this.ended.filter((checkpoint) => checkpoint.status === "failed").length;
    setText(byId("checkpoints-summary"), this.ended.length === 0 ? ""
      : counted(this.ended.length, "checkpoint ended", "checkpoints ended")
        + (failed ? `, ${count(failed)} failed` : ""));
  }

  row(checkpoint) {
    const cells = columns(checkpoint).map(([label, text, name]) => {
      const parts = Array.isArray(text)
        ? [make("span", {}, text[0]), " ", make("small", {}, text[1])] : [text];
      return make("td", { class: name, "data-label": label }, make("div", {}, ...parts));
    });
    return make("tr", { class: checkpoint.status }, ...cells);
  }

  errorRow(checkpoint) {
    const cell = make("td", { colspan: 11 }, make("div", {}, checkpoint.error));
    return make("tr", { class: `error ${checkpoint.status}` }, cell);
  }
}
