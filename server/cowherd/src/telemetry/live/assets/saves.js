// The last saves as a table, the newest first.

import {
  byId, bytes, count, counted, duration, make, moment, percent, ratio, speed, say,
} from "./format.js";

const SHORT = 10;
const KEPT = 64;
const CAUSES = {
  safepoint: "safepoint", fork: "fork", "cow-fault": "copy-on-write", "undo-capture": "undo log",
  other: "other",
};
const STALL = "and the longest stall is the slowest command with what slowed it.";
const COW = {
  meaning: `What each save cost the clients while it ran: amplification is bytes copied for each `
    + `byte written, ${STALL}`,
  heads: ["Faults", "Copied"],
};
const UNDO = {
  meaning: `What each save cost the clients while it ran: blocks captured with the most that the `
    + `undo log took, amplification is bytes captured for each byte written, ${STALL}`,
  heads: ["Captures", "Captured"],
};

export function hasUndoLog(save) {
  return save.isolation === "undo-log";
}

function isSame(one, other) {
  return one.number === other.number && one.started_ms === other.started_ms;
}

// What was copied or captured: label and text of the columns that depend on the isolation.
function changed(save) {
  const { cow, undo } = save;
  const [number, size] = (hasUndoLog(save) ? UNDO : COW).heads;
  if (!hasUndoLog(save)) {
    return [
      [number, count(cow.faults), "number"],
      [size, bytes(cow.copied_bytes), "number"],
      ["Amplification", ratio(save.cow_amplification), "number"],
    ];
  }
  return [
    [number, count(undo.captures), "number"],
    [size, [bytes(undo.captured_bytes), `log ${bytes(undo.log_bytes)}`], "number"],
    ["Amplification", ratio(save.undo_amplification), "number"],
  ];
}

// Label and text of each column.
function columns(save) {
  const running = save.status === "running";
  const stall = save.longest_stall;
  return [
    ["No.", save.number ? count(save.number) : "–", "number"],
    ["Started", moment(save.started_ms), ""],
    ["Status", running ? `running, ${percent(save.chunks_done / Math.max(1, save.chunks))}`
      : save.status, "status"],
    ["Fork", save.background ? duration(save.fork_seconds) : "–", "number"],
    ["Duration", duration(save.duration_seconds), "number"],
    ...changed(save),
    ["Longest stall", stall ? [duration(stall.seconds), `${stall.command}, ${CAUSES[stall.cause]}`]
      : "–", "stall"],
    ["Speed", speed(save.bytes_per_second), "number"],
    ["Image", save.image_bytes ? bytes(save.image_bytes) : "–", "number"],
  ];
}

export class Saves {
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
    say(byId("saves-meaning"), words.meaning);
    ["head-number", "head-size"].forEach((id, i) => say(byId(id), words.heads[i]));
    const unit = state.undo ? "captured" : "copied";
    byId("head-ratio").title = `amplification: bytes ${unit} for each byte written`;
  }

  set(saves) {
    this.running = saves.running;
    this.ended = saves.ended;
    this.draw();
  }

  progress(save) {
    if (this.ended.some((one) => isSame(one, save))) return;
    const isNew = !this.running || !isSame(this.running, save);
    this.running = save;
    if (isNew) this.draw();
    else this.body.firstElementChild.replaceWith(this.row(save));
  }

  end(save) {
    if (this.running && this.running.number === save.number) this.running = null;
    if (this.ended.some((one) => isSame(one, save))) return;
    this.ended.push(save);
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
    this.body.replaceChildren(...shown.flatMap((save) => {
      return save.error ? [this.row(save), this.errorRow(save)] : [this.row(save)];
    }));
    byId("table").hidden = all.length === 0;
    byId("saves-empty").hidden = all.length > 0;
    byId("more").hidden = all.length <= SHORT;
    say(byId("more"), this.showsAll ? `Show only the last ${SHORT}` : `Show all ${all.length}`);
    const failed = this.ended.filter((save) => save.status === "failed").length;
    say(byId("saves-summary"), this.ended.length === 0 ? ""
      : counted(this.ended.length, "save ended", "saves ended")
        + (failed ? `, ${count(failed)} failed` : ""));
  }

  row(save) {
    const cells = columns(save).map(([label, text, name]) => {
      const parts = Array.isArray(text)
        ? [make("span", {}, text[0]), " ", make("small", {}, text[1])] : [text];
      return make("td", { class: name, "data-label": label }, make("div", {}, ...parts));
    });
    return make("tr", { class: save.status }, ...cells);
  }

  errorRow(save) {
    const cell = make("td", { colspan: 11 }, make("div", {}, save.error));
    return make("tr", { class: `error ${save.status}` }, cell);
  }
}
