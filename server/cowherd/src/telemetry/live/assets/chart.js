// Latency and rate over time: one drawing in SVG, renewed once a second.

import { byId, count, duration, make, makeSvg, setText, time } from "./format.js";

const KEPT = 600;
const GAP_MS = 2600;
const SERIES = [
  { name: "max", field: "max_seconds" },
  { name: "p99.9", field: "p999_seconds" },
  { name: "p99", field: "p99_seconds" },
  { name: "p50", field: "p50_seconds" },
];
const MARGIN = { top: 20, right: 46, bottom: 22, left: 52 };
const RATE_HEIGHT = 52;
const RATE_GAP = 30;
// The least that the scale of durations spans: a microsecond to a millisecond.
const DECADES = [-6, -3];

// An SVG path through the points; a null point leaves a gap.
function line(points) {
  let pen = "M";
  let path = "";
  for (const point of points) {
    if (!point) {
      pen = "M";
      continue;
    }
    path += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = "L";
  }
  return path;
}

function dots(points) {
  return points.filter(Boolean).map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join("");
}

// Areas between two lines, one for each stretch without a gap.
function band(upper, lower) {
  let path = "";
  let from = 0;
  for (let to = 0; to <= upper.length; to += 1) {
    if (to < upper.length && upper[to] && lower[to]) continue;
    if (to > from) {
      const back = lower.slice(from, to).reverse();
      path += `${line([...upper.slice(from, to)])}${line(back).replace("M", "L")}Z`;
    }
    from = to + 1;
  }
  return path;
}

// 1, 2 or 5 times a power of ten, not below the value.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class Chart {
  constructor() {
    this.seconds = [];
    this.checkpoints = [];
    // The minutes that the user has chosen, and the index of the second under the pointer.
    this.chosen = null;
    this.cursor = null;
    this.root = byId("chart");
    this.buttons = [...document.querySelectorAll("[data-minutes]")];
    this.build();
    this.buildReadout();
    this.attach();
    this.draw();
  }

  setSeconds(seconds) {
    this.seconds = seconds;
    this.cursor = null;
    this.draw();
  }

  addSecond(second) {
    const last = this.seconds.at(-1);
    if (last && second.at_ms <= last.at_ms) return;
    this.seconds.push(second);
    if (this.seconds.length > KEPT) {
      this.seconds.shift();
      if (this.cursor !== null) this.cursor = Math.max(0, this.cursor - 1);
    }
    this.draw();
  }

  // Drawn together with the next second, at the latest.
  setCheckpoints(checkpoints) {
    const changed = checkpoints.length !== this.checkpoints.length;
    this.checkpoints = checkpoints;
    if (changed) this.draw();
  }

  build() {
    const layer = (name) => makeSvg("g", { class: name });
    this.layers = {
      checkpoints: layer("checkpoints"), grid: layer("grid"), labels: layer("labels"),
    };
    this.area = makeSvg("path", { class: "band" });
    this.rate = makeSvg("path", { class: "rate" });
    this.lines = new Map([...SERIES].reverse().map(({ name }) => {
      return [name, makeSvg("path", { class: `line ${this.className(name)}` })];
    }));
    this.pointer = makeSvg("g", { class: "pointer" });
    this.svg = makeSvg("svg", { "aria-hidden": "true", focusable: "false" },
      this.layers.checkpoints, this.layers.grid, this.area, this.rate, ...this.lines.values(),
      this.layers.labels, this.pointer);
    this.root.append(this.svg);
  }

  className(name) {
    return name.replace(".", "");
  }

  buildReadout() {
    this.values = new Map();
    const item = (name, label) => {
      const value = make("dd");
      this.values.set(name, value);
      return make("div", { class: this.className(name) }, make("dt", {}, label), value);
    };
    byId("readout").append(
      item("when", "moment"),
      ...[...SERIES].reverse().map(({ name }) => item(name, name)),
      item("rate", "commands/s"),
    );
  }

  attach() {
    new ResizeObserver(() => this.draw()).observe(this.root);
    this.root.addEventListener("pointermove", (event) => this.point(event));
    this.root.addEventListener("pointerdown", (event) => this.point(event));
    this.root.addEventListener("pointerleave", () => this.moveTo(null));
    this.root.addEventListener("blur", () => this.moveTo(null));
    this.root.addEventListener("keydown", (event) => this.press(event));
    for (const button of this.buttons) {
      button.addEventListener("click", () => {
        this.chosen = Number(button.dataset.minutes);
        this.cursor = null;
        this.draw();
      });
    }
  }

  point(event) {
    if (!this.frame || this.shown().length === 0) return;
    const { left } = this.svg.getBoundingClientRect();
    const at = this.frame.timeAt(event.clientX - left);
    let nearest = this.first();
    for (let i = nearest; i < this.seconds.length; i += 1) {
      const isNearer = Math.abs(this.seconds[i].at_ms - at)
        < Math.abs(this.seconds[nearest].at_ms - at);
      if (isNearer) nearest = i;
    }
    this.moveTo(nearest);
  }

  press(event) {
    const last = this.seconds.length - 1;
    if (last < 0) return;
    const now = this.cursor ?? last;
    const step = event.shiftKey ? 10 : 1;
    const target = {
      ArrowLeft: now - step, ArrowDown: now - step, PageDown: now - 60, Home: this.first(),
      ArrowRight: now + step, ArrowUp: now + step, PageUp: now + 60, End: last, Escape: null,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.moveTo(target === null ? null : Math.min(last, Math.max(this.first(), target)));
  }

  moveTo(index) {
    this.cursor = index;
    this.drawPointer();
    this.showFigures();
  }

  // Minutes shown: the choice of the user, or else the fewest that hold all seconds.
  minutes() {
    if (this.chosen) return this.chosen;
    const [first, last] = [this.seconds[0], this.seconds.at(-1)];
    const known = first ? (last.at_ms - first.at_ms) / 60000 : 0;
    return [1, 3, 10].find((minutes) => known <= minutes) ?? 10;
  }

  first() {
    const from = (this.seconds.at(-1)?.at_ms ?? 0) - this.minutes() * 60000;
    return Math.max(0, this.seconds.findIndex((second) => second.at_ms >= from));
  }

  shown() {
    return this.seconds.slice(this.first());
  }

  measure() {
    const width = Math.max(260, this.root.clientWidth);
    const plot = width < 560 ? 190 : 250;
    const { top, right, bottom, left } = MARGIN;
    const end = this.seconds.at(-1)?.at_ms ?? Date.now();
    const span = this.minutes() * 60000;
    const inner = width - left - right;
    const floor = top + plot + RATE_GAP + RATE_HEIGHT;
    return {
      width, plot, end, span, floor, height: floor + bottom,
      start: end - span,
      x: (ms) => left + ((ms - end + span) / span) * inner,
      timeAt: (x) => end - span + ((x - left) / inner) * span,
    };
  }

  decades(seconds) {
    let [low, high] = DECADES;
    for (const second of seconds) {
      if (second.p50_seconds) low = Math.min(low, Math.floor(Math.log10(second.p50_seconds)));
      if (second.max_seconds) high = Math.max(high, Math.ceil(Math.log10(second.max_seconds)));
    }
    return [Math.max(low, -9), high];
  }

  draw() {
    const shown = this.shown();
    this.frame = this.measure();
    const { frame } = this;
    const [low, high] = this.decades(shown);
    frame.y = (value) => {
      const share = (Math.log10(value) - low) / (high - low);
      return MARGIN.top + (1 - Math.max(0, Math.min(1, share))) * frame.plot;
    };
    const peak = Math.max(0, ...shown.map((second) => second.commands_per_second));
    frame.top = peak > 0 ? roundUp(peak) : 1;
    frame.rateY = (value) => frame.floor - (value / frame.top) * RATE_HEIGHT;
    this.svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    this.svg.setAttribute("width", frame.width);
    this.svg.setAttribute("height", frame.height);
    this.drawGrid(low, high);
    if (!shown.some((second) => second.max_seconds)) this.drawNothing();
    this.drawCheckpoints();
    this.drawLines(shown);
    this.drawPointer();
    this.showFigures();
    for (const button of this.buttons) {
      button.setAttribute("aria-pressed", Number(button.dataset.minutes) === this.minutes());
    }
  }

  drawGrid(low, high) {
    const { frame } = this;
    const [x0, x1] = [MARGIN.left, frame.width - MARGIN.right];
    const marks = [];
    const text = (x, y, anchor, words, name = "") => {
      marks.push(makeSvg("text", { x, y, "text-anchor": anchor, class: name }, words));
    };
    const rule = (y, name = "") => {
      marks.push(makeSvg("path", { d: `M${x0} ${y.toFixed(1)}H${x1}`, class: name }));
    };
    for (let power = low; power <= high; power += 1) {
      const y = frame.y(10 ** power);
      rule(y);
      text(x0 - 8, y + 4, "end", duration(10 ** power));
    }
    rule(frame.floor, "floor");
    rule(frame.rateY(frame.top));
    text(x0 - 8, frame.rateY(frame.top) + 4, "end", this.brief(frame.top));
    text(x0 - 8, frame.floor + 4, "end", "0");
    text(x1 + 6, frame.floor - RATE_HEIGHT / 2 + 4, "start", "cmd/s");
    const step = { 1: 15, 3: 30, 10: 120 }[this.minutes()] * (frame.width < 560 ? 2 : 1) * 1000;
    for (let at = Math.ceil(frame.start / step) * step; at <= frame.end; at += step) {
      const x = frame.x(at);
      const y = frame.floor;
      marks.push(makeSvg("path", { d: `M${x.toFixed(1)} ${y}v4`, class: "floor" }));
      text(x, y + 17, x > x1 - 24 ? "end" : "middle", time(at));
    }
    this.layers.grid.replaceChildren(...marks);
  }

  drawNothing() {
    const { frame } = this;
    const words = this.seconds.length ? "no command ran in this time" : "no figures yet";
    const place = { x: (MARGIN.left + frame.width - MARGIN.right) / 2, "text-anchor": "middle",
      y: MARGIN.top + frame.plot / 2, class: "nothing" };
    this.layers.grid.append(makeSvg("text", place, words));
  }

  brief(value) {
    if (value >= 1e6) return `${value / 1e6}M`;
    return value >= 1e4 ? `${value / 1e3}k` : count(value);
  }

  drawCheckpoints() {
    const { frame } = this;
    const [left, right] = [MARGIN.left, frame.width - MARGIN.right];
    const shapes = [];
    let free = -Infinity;
    for (const checkpoint of this.checkpoints) {
      const until = checkpoint.status === "running"
        ? Math.max(frame.end, checkpoint.started_ms + checkpoint.duration_seconds * 1000)
        : checkpoint.started_ms + checkpoint.duration_seconds * 1000;
      if (until < frame.start || checkpoint.started_ms > frame.end) continue;
      const x0 = Math.max(left, frame.x(checkpoint.started_ms));
      const x1 = Math.min(right, Math.max(x0 + 2, frame.x(until)));
      shapes.push(makeSvg("rect", {
        x: x0.toFixed(1), y: MARGIN.top, class: checkpoint.status,
        width: Math.max(1, x1 - x0).toFixed(1), height: frame.floor - MARGIN.top,
      }));
      const isWhole = ["ok", "running"].includes(checkpoint.status);
      const { number, status } = checkpoint;
      const label = isWhole ? `checkpoint ${number}` : `${number} ${status}`;
      const wide = label.length * 7.5;
      const x = Math.min(x0, right + MARGIN.right - wide);
      if (x >= free) {
        const place = { x: x.toFixed(1), y: MARGIN.top - 7, class: checkpoint.status };
        shapes.push(makeSvg("text", place, label));
        free = x + wide + 6;
      }
    }
    this.layers.checkpoints.replaceChildren(...shapes);
  }

  drawLines(shown) {
    const { frame } = this;
    // A gap in time becomes a gap in the line.
    const points = (of) => shown.flatMap((second, i) => {
      const gap = i > 0 && second.at_ms - shown[i - 1].at_ms > GAP_MS;
      const y = of(second);
      const point = y === null ? null : [frame.x(second.at_ms), y];
      return gap ? [null, point] : [point];
    });
    const series = new Map(SERIES.map(({ name, field }) => {
      return [name, points((second) => (second[field] ? frame.y(second[field]) : null))];
    }));
    for (const [name, path] of this.lines) {
      path.setAttribute("d", name === "max" ? dots(series.get(name)) : line(series.get(name)));
    }
    this.area.setAttribute("d", band(series.get("p99"), series.get("p50")));
    const rates = points((second) => frame.rateY(second.commands_per_second));
    const ground = rates.map((point) => point && [point[0], frame.floor]);
    this.rate.setAttribute("d", band(rates, ground));
    this.drawLabels(series);
  }

  // The names at the lines' ends, moved apart where they would touch.
  drawLabels(series) {
    const { frame } = this;
    const ends = [...series].map(([name, points]) => ({ name, y: points.findLast(Boolean)?.[1] }))
      .filter(({ y }) => y !== undefined);
    ends.sort((a, b) => a.y - b.y);
    let free = MARGIN.top;
    for (const end of ends) {
      end.y = Math.max(end.y, free);
      free = end.y + 14;
    }
    const over = free - 14 - (MARGIN.top + frame.plot);
    const labels = ends.map(({ name, y }) => makeSvg("text", {
      x: frame.width - MARGIN.right + 6, y: y + 4 - Math.max(0, over),
      class: this.className(name),
    }, name));
    this.layers.labels.replaceChildren(...labels);
  }

  drawPointer() {
    const second = this.cursor === null ? undefined : this.seconds[this.cursor];
    const { frame } = this;
    if (!second || second.at_ms < frame.start) {
      this.pointer.replaceChildren();
      return;
    }
    const x = frame.x(second.at_ms).toFixed(1);
    const rings = SERIES.filter(({ field }) => second[field]).map(({ name, field }) => {
      const y = frame.y(second[field]).toFixed(1);
      return makeSvg("circle", { cx: x, cy: y, r: 4, class: this.className(name) });
    });
    this.pointer.replaceChildren(
      makeSvg("path", { d: `M${x} ${MARGIN.top}V${frame.floor}` }), ...rings,
    );
  }

  checkpointAt(ms) {
    const until = (checkpoint) => checkpoint.started_ms + checkpoint.duration_seconds * 1000;
    return this.checkpoints.find((checkpoint) => {
      return checkpoint.started_ms <= ms
        && (checkpoint.status === "running" || ms - 1000 <= until(checkpoint));
    });
  }

  showFigures() {
    const last = this.seconds.length - 1;
    const index = this.cursor ?? last;
    const second = this.seconds[index];
    const checkpoint = second && this.checkpointAt(second.at_ms);
    const during = checkpoint ? `checkpoint ${checkpoint.number}` : "no checkpoint";
    const when = this.cursor === null ? "now" : second ? time(second.at_ms) : "–";
    setText(this.values.get("when"), second ? `${when}, ${during}` : "–");
    for (const { name, field } of SERIES) {
      setText(this.values.get(name), second ? duration(second[field]) : "–");
    }
    setText(this.values.get("rate"), second ? count(second.commands_per_second) : "–");
    if (!second) return;
    const ago = Math.round((this.seconds[last].at_ms - second.at_ms) / 1000);
    const figures = SERIES.map(({ name, field }) => `${name} ${duration(second[field])}`);
    const attributes = {
      "aria-valuemin": -this.minutes() * 60, "aria-valuemax": 0, "aria-valuenow": -ago,
      "aria-valuetext": `${time(second.at_ms)}, ${during}: ${figures.join(", ")}, `
        + `${count(second.commands_per_second)} commands a second`,
    };
    for (const [name, value] of Object.entries(attributes)) this.root.setAttribute(name, value);
  }
}
