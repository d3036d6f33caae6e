// Formatting of numbers and creation of elements.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// Three digits at most, without an exponent.
function short(value) {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  const text = value.toFixed(digits);
  return digits ? text.replace(/\.?0+$/, "") : text;
}

function scaled(value, units, step) {
  let unit = 0;
  while (unit < units.length - 1 && Math.abs(value) >= step * 0.9995) {
    value /= step;
    unit += 1;
  }
  return `${short(value)} ${units[unit]}`;
}

export function count(value) {
  return whole.format(value);
}

// "1 page", "1,234 pages".
export function counted(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function bytes(value) {
  return value === null || value === undefined
    ? "–" : scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024);
}

// A duration from its seconds: 8.2 µs, 340 ms, 3.1 s, 4 min 10 s, 3 h 12 min.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0";
  if (seconds < 1e-6) return `${short(seconds * 1e9)} ns`;
  if (seconds < 60) return scaled(seconds * 1e6, ["µs", "ms", "s"], 1000);
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (hours < 1) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  if (days < 1) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

export function speed(perSecond) {
  return perSecond > 0 ? `${short(perSecond / 1e6)} MB/s` : "–";
}

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

export function ratio(value) {
  return value > 0 ? `${value >= 10 ? count(value) : short(value)}×` : "–";
}

export function time(ms) {
  return clock.format(ms);
}

// With the day, when it is not today's.
export function moment(ms) {
  const isToday = new Date(ms).toDateString() === new Date().toDateString();
  return isToday ? time(ms) : `${day.format(ms)}, ${time(ms)}`;
}

// An HTML element with attributes and children; text is never read as markup.
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function makeSvg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

// Writes only changes, to avoid a needless layout.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
