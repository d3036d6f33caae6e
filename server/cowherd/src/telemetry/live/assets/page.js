// Listens to the server and hands what it tells to the parts of the page.

import { Arena } from "./arena.js";
import { Chart } from "./chart.js";
import { Facts } from "./facts.js";
import { Saves } from "./saves.js";
import { byId, bytes, count, counted, duration, say } from "./format.js";

const SILENCE_MS = 4000;
const RETRY_MS = 3000;

const chart = new Chart();
const arena = new Arena();
const saves = new Saves();
const facts = new Facts();

let heardAt = 0;
let latest = null;

function showState(state) {
  latest = state;
  say(byId("version"), state.version);
  const { used_bytes: used, limit_bytes: limit } = state.memory;
  const words = [
    `port ${state.port}`,
    counted(state.keys, "key"),
    limit ? `${bytes(used)} of ${bytes(limit)}` : bytes(used),
    counted(state.clients, "client"),
    `up ${duration(state.uptime_seconds)}`,
  ];
  const spans = byId("summary").children;
  words.forEach((text, i) => say(spans[i], text));
  const port = state.port && state.port !== 6379 ? ` -p ${state.port}` : "";
  say(byId("bgsave"), `redis-cli${port} BGSAVE`);
  arena.setState(state);
  saves.setState(state);
  facts.setState(state);
}

function showSaves() {
  chart.setSaves(saves.all());
  arena.setSave(saves.running, saves.ended.at(-1), latest);
}

function announce(save) {
  const end = save.status === "ok" ? `ended after ${duration(save.duration_seconds)}` : save.status;
  say(byId("announcer"), save.status === "running"
    ? `Save ${save.number} has begun` : `Save ${save.number} ${end}`);
}

function link(state, text) {
  byId("link").dataset.state = state;
  say(byId("link"), text);
}

const heard = {
  hello(data) {
    showState(data.state);
    saves.set(data.saves);
    chart.setSeconds(data.seconds);
    arena.setMap(data.map);
    showSaves();
  },
  second(data) {
    showState(data.state);
    chart.addSecond(data.second);
    showSaves();
  },
  map(data) {
    arena.setMap(data);
  },
  save(data) {
    if (data.phase === "end") {
      saves.end(data);
      announce(data);
    } else {
      if (data.phase === "start") announce(data);
      saves.progress(data);
    }
    showSaves();
  },
};

function listen() {
  const source = new EventSource("/events");
  for (const [name, handle] of Object.entries(heard)) {
    source.addEventListener(name, (event) => {
      heardAt = performance.now();
      link("live", "live");
      handle(JSON.parse(event.data));
    });
  }
  source.addEventListener("error", () => {
    link("lost", heardAt ? "connection lost, reconnecting" : "no connection, trying again");
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source.readyState !== EventSource.CLOSED) return;
    link("lost", "turned away: are too many pages open? trying again");
    setTimeout(listen, RETRY_MS);
  });
}

setInterval(() => {
  const silence = performance.now() - heardAt;
  if (byId("link").dataset.state === "live" && silence > SILENCE_MS) {
    link("lost", `silent for ${count(silence / 1000)} s`);
  } else if (silence > SILENCE_MS && byId("link").textContent.startsWith("silent")) {
    say(byId("link"), `silent for ${count(silence / 1000)} s`);
  }
}, 1000);

listen();
