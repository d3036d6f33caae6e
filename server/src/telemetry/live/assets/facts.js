// Pages, isolation, pool and memory, in words and a few bars.

import { byId, bytes, count, duration, make, percent, ratio, say } from "./format.js";

const ISOLATION = {
  "kernel-cow": "the kernel copies each page that is written first after the fork",
  "undo-log": "writers note old bytes; no page is copied",
};

export class Facts {
  constructor() {
    this.groups = new Map();
  }

  setState(state) {
    this.pages(state);
    this.thp(state);
    this.pool(state);
    this.memory(state);
    this.cow(state);
  }

  // One group of names and values; built once, then only its texts change.
  group(title, rows) {
    let group = this.groups.get(title);
    if (!group) {
      group = { list: make("dl"), values: new Map() };
      this.groups.set(title, group);
      byId("facts").append(make("div", {}, make("h3", {}, title), group.list));
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
    say(value.text, text);
    if (value.bar) value.bar.style.transform = `scaleX(${Math.min(1, share)})`;
  }

  pages({ arena, isolation }) {
    const used = arena.used_chunks * arena.chunk_bytes;
    const covered = used ? Math.min(1, arena.huge_bytes / used) : 0;
    this.group("Pages", [
      ["asked for", arena.pages_asked],
      ["really there", arena.pages],
      ["on huge pages", `${bytes(arena.huge_bytes)}, ${percent(covered)} of what is in use`,
        covered],
      ["one fault copies", bytes(arena.cow_page_bytes)],
      ["isolation", ISOLATION[isolation] ? `${isolation}: ${ISOLATION[isolation]}` : isolation],
    ]);
  }

  thp({ thp }) {
    this.group("Transparent huge pages", [
      ["setting", thp.setting || "not in this kernel"],
      ["split by writers", count(thp.splits)],
      ["made whole again", count(thp.healed)],
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
      ["taken", `${count(taken)} of ${count(pool.total)}`, pool.total ? taken / pool.total : 0],
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

  cow({ cow }) {
    this.group("Copy-on-write since the start", [
      ["faults", count(cow.faults)],
      ["copied", bytes(cow.copied_bytes)],
      ["amplification", ratio(cow.amplification)],
      ["clients stood still", duration(cow.stall_seconds)],
      ["longest fault", cow.faults ? duration(cow.longest_fault_seconds) : "–"],
      ["first writes that copied nothing", count(cow.fresh_pages + cow.private_pages)],
    ]);
  }
}
