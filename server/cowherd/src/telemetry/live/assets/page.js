// Receives the server's events and passes their data to the parts of the page.

import { OccupancyMap } from "./occupancy_map.js";
import { Chart } from "./chart.js";
import { MemoryPanel } from "./memory.js";
import { Checkpoints } from "./checkpoints.js";
import { byId, bytes, count, counted, duration, setText } from "./format.js";

const SILENCE_LIMIT_MS = 4000;
const RETRY_MS = 3000;

const chart = new Chart();
const occupancyMap = new OccupancyMap();
const checkpoints = new Checkpoints();
const memoryPanel = new MemoryPanel();

let lastEventAt = 0;
let latest = null;

// The restore of the image, until the server serves.
function showLoading(loading) {
  byId("loading").hidden = !loading;
  if (!loading) return;
  const { share, read_bytes: read, total_bytes: total, remaining_seconds: remaining } = loading;
  const bar = byId("loading-bar");
  bar.firstElementChild.style.transform = `scaleX(${share})`;
  bar.setAttribute("aria-valuenow", Math.round(share * 100));
  const left = remaining === null ? "" : `, about ${duration(remaining)} left`;
  setText(byId("loading-now"), share < 1
    ? `Loading the image: ${bytes(read)} of ${bytes(total)} read${left}. Commands are refused.`
    : "Loading the image: read, being verified. Commands are refused.");
}

function showState(state) {
  latest = state;
  showLoading(state.loading);
  setText(byId("version"), state.version);
  const { used_bytes: used, limit_bytes: limit } = state.memory;
  const words = [
    `port ${state.port}`,
    counted(state.keys, "key"),
    limit ? `${bytes(used)} of ${bytes(limit)}` : bytes(used),
    counted(state.clients, "client"),
    `up ${duration(state.uptime_seconds)}`,
  ];
  const spans = byId("summary").children;
  words.forEach((text, i) => setText(spans[i], text));
  const port = state.port && state.port !== 6379 ? ` -p ${state.port}` : "";
  setText(byId("bgsave"), `redis-cli${port} BGSAVE`);
  occupancyMap.setState(state);
  checkpoints.setState(state);
  memoryPanel.setState(state);
}

function showCheckpoints() {
  chart.setCheckpoints(checkpoints.all());
  occupancyMap.setCheckpoint(checkpoints.running, checkpoints.ended.at(-1), latest);
}

function announce(checkpoint) {
  const { number, status } = checkpoint;
  const end = status === "ok" ? `ended after ${duration(checkpoint.duration_seconds)}` : status;
  setText(byId("announcer"), `Checkpoint ${number} ${status === "running" ? "has begun" : end}`);
}

function link(state, text) {
  byId("link").dataset.state = state;
  setText(byId("link"), text);
}

const handlers = {
  hello(data) {
    showState(data.state);
    checkpoints.set(data.checkpoints);
    chart.setSeconds(data.seconds);
    occupancyMap.setMap(data.map);
    showCheckpoints();
  },
  second(data) {
    showState(data.state);
    chart.addSecond(data.second);
    showCheckpoints();
  },
  map(data) {
    occupancyMap.setMap(data);
  },
  checkpoint(data) {
    if (data.phase === "end") {
      checkpoints.end(data);
      announce(data);
    } else {
      if (data.phase === "start") announce(data);
      checkpoints.progress(data);
    }
    showCheckpoints();
  },
};

function listen() {
  const source = new EventSource("/events");
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      lastEventAt = performance.now();
      link("live", "live");
      handle(JSON.parse(event.data));
    });
  }
  source.addEventListener("error", () => {
    link("lost", lastEventAt ? "connection lost, reconnecting" : "no connection, trying again");
    // EventSource reconnects by itself, but not after a response that is no event stream.
    if (source.readyState !== EventSource.CLOSED) return;
    link("lost", "turned away: are too many pages open? trying again");
    setTimeout(listen, RETRY_MS);
  });
}

setInterval(() => {
  const silence = performance.now() - lastEventAt;
  if (byId("link").dataset.state === "live" && silence > SILENCE_LIMIT_MS) {
    link("lost", `silent for ${count(silence / 1000)} s`);
  } else if (silence > SILENCE_LIMIT_MS && byId("link").textContent.startsWith("silent")) {
    setText(byId("link"), `silent for ${count(silence / 1000)} s`);
  }
}, 1000);

listen();
