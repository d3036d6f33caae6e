// The panel of pages, isolation, pool and memory.

import { byId, bytes, count, duration, make, percent, ratio, setText } from "./format.js";

const ISOLATION = {
  "kernel-cow": "the kernel copies each page that is written first after the fork",
  "undo-log": "writers put old bytes into a log; no page is copied",
};

const MEANING = "The configured and the actual pages of the arena, which determine how";

export class MemoryPanel {
  constructor() {
    this.groups = new Map();
  }

  setState(state) {
    setText(byId("pages-meaning"), state.undo ? `${MEANING} fast it is read and written.`
      : `${MEANING} much one copy-on-write fault costs.`);
    this.pages(state);
    this.thp(state);
    this.pool(state);
    this.memory(state);
    if (state.undo) this.undo(state);
    else this.cow(state);
  }

  // One group of names and values: built once, then only the texts change.
  group(title, rows) {
    let group = this.groups.get(title);
    if (!group) {
      group = { list: make("dl"), values: new Map() };
      this.groups.set(title, group);
      byId("memory-panel").append(make("div", {}, make("h3", {}, title), group.list));
    }
    for (const name of group.values.keys()) {
      if (!rows.some(([row]) => row === name)) {
        group.values.get(name).row.remove();
        group.values.delete(name);
      }
    }
    for (const [name, text, share] of rows) this.row(group, name, text, share);
  }

  row(group, name, text, share) {
    let value = group.values.get(name);
    if (!value) {
      value = { text: make("dd") };
      value.row = make("div", {}, make("dt", {}, name), value.text);
      if (share !== undefined) {
        value.bar = make("i");
        value.row.append(make("dd", { class: "bar", "aria-hidden": "true" }, value.bar));
      }
      group.values.set(name, value);
      group.list.append(value.row);
    }
    setText(value.text, text);
    if (value.bar) value.bar.style.transform = `scaleX(${Math.min(1, share)})`;
  }

  pages({ arena, isolation, undo }) {
    const used = arena.used_chunks * arena.chunk_bytes;
    const covered = used ? Math.min(1, arena.huge_bytes / used) : 0;
    this.group("Pages", [
      ["configured", arena.pages_asked],
      ["actual", arena.pages],
      ["on huge pages", `${bytes(arena.huge_bytes)}, ${percent(covered)} of what is in use`,
        covered],
      undo ? ["one capture copies", bytes(undo.block_bytes)]
        : ["one fault copies", bytes(arena.cow_page_bytes)],
      ["isolation", ISOLATION[isolation] ? `${isolation}: ${ISOLATION[isolation]}` : isolation],
    ]);
  }

  thp({ thp, undo }) {
    const where = undo ? " for shared memory" : "";
    this.group("Transparent huge pages", [
      ["setting", thp.setting ? `${thp.setting}${where}` : "not in this kernel"],
      ...(undo ? [] : [["split by writers", count(thp.splits)]]),
      ["collapsed again", count(thp.collapsed)],
    ]);
  }

  pool({ pool }) {
    if (!pool) {
      this.group("Pool of huge pages", [["in use", "no: the arena is not made of them"]]);
      return;
    }
    const taken = pool.total - pool.free;
    this.group("Pool of huge pages", [
      ["page", bytes(pool.page_bytes)],
      ["used", `${count(taken)} of ${count(pool.total)}`, pool.total ? taken / pool.total : 0],
      ["free", count(pool.free)],
      ["reserved", `${count(pool.reserved)} of the free ones`],
    ]);
  }

  memory({ memory }) {
    const share = memory.limit_bytes ? memory.used_bytes / memory.limit_bytes : 0;
    this.group("Memory", [
      ["used", memory.limit_bytes
        ? `${bytes(memory.used_bytes)} of ${bytes(memory.limit_bytes)}` : bytes(memory.used_bytes),
      share],
      ["at most so far", bytes(memory.peak_bytes)],
      ["resident", bytes(memory.resident_bytes)],
      ["when full", memory.policy],
    ]);
  }

  undo({ undo }) {
    this.group("Undo log since the start", [
      ["blocks captured", count(undo.captures)],
      ["captured", bytes(undo.captured_bytes)],
      ["amplification", ratio(undo.amplification)],
      ["clients held up", duration(undo.stall_seconds)],
      ["longest capture", undo.captures ? duration(undo.longest_capture_seconds) : "–"],
      ["records reused", count(undo.reused_records)],
      ["in the log now", `${bytes(undo.log_bytes)} of ${bytes(undo.limit_bytes)} at most`,
        undo.limit_bytes ? undo.log_bytes / undo.limit_bytes : 0],
    ]);
  }

  cow({ cow }) {
    this.group("Copy-on-write since the start", [
      ["faults", count(cow.faults)],
      ["copied", bytes(cow.copied_bytes)],
      ["amplification", ratio(cow.amplification)],
      ["clients stalled", duration(cow.stall_seconds)],
      ["longest fault", cow.faults ? duration(cow.longest_fault_seconds) : "–"],
      ["first writes that copied nothing", count(cow.fresh_pages + cow.private_pages)],
    ]);
  }
}
