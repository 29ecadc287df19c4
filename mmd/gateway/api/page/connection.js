// Staying in touch: events as they come, again and again after the connection is lost; polling where there are none.
// Only while somebody looks: a browser opens six connections to a gateway, for all its tabs together.

import { ApiError, events, read, readIfThere } from "./api.js";
import { askForKey } from "./key.js";
import { find, say } from "./dom.js";
import { learn, learnDownload, learnResources, learnSwap, state } from "./state.js";

const FIRST_DELAY_MS = 500;
const MOST_DELAY_MS = 10_000;
const POLL_MS = 5_000;
const SILENCE_MS = 60_000; // resources are told every few seconds: who is silent for so long is out of reach

export async function stayInTouch() {
  for (let delay = FIRST_DELAY_MS; ; delay = Math.min(delay * 2, MOST_DELAY_MS)) {
    await isLookedAt();
    try {
      await listen(() => (delay = FIRST_DELAY_MS));
    } catch (error) {
      if (error.status === 404) return poll();
      if (error.status === 401 || error.status === 403) {
        await askForKey(error);
        delay = FIRST_DELAY_MS;
        continue;
      }
      report(error);
    }
    if (document.hidden) continue;
    tell("Connection lost. Trying again…");
    await pause(delay);
  }
}

async function isLookedAt() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

async function listen(isHeard) {
  const silence = new AbortController();
  const { signal } = silence;
  const hush = () => setTimeout(() => silence.abort(), SILENCE_MS);
  document.addEventListener("visibilitychange", () => document.hidden && silence.abort(), { signal });
  let timer = hush();
  let isFirst = true;
  try {
    for await (const { kind, data } of events(signal)) {
      clearTimeout(timer);
      timer = hush();
      if (isFirst) await loadRest(); // after the events have begun: what changes in between is in one or the other
      isFirst = false;
      isHeard();
      tell("Live");
      await take(kind, data);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

async function take(kind, data) {
  if (kind === "status") await learnStatus(data);
  else if (kind === "queue") learn("queue", data);
  else if (kind === "resources") learnResources(data);
  else if (kind === "swap") learnSwap(data);
  else if (kind === "download") {
    learnDownload(data);
    if (data.state === "done") await learnModels();
  }
}

export async function learnStatus(status) {
  learn("status", status);
  await learnModels();
}

// Their records are not told: they follow the status, and what has been downloaded.
async function learnModels() {
  learn("models", await read("/models"));
}

async function loadRest() {
  const paths = ["/resources/history", "/swaps?limit=20", "/hf/downloads"];
  const [history, swaps, downloads] = await Promise.all(paths.map((path) => readIfThere(path)));
  if (history) learn("history", history);
  learn("swaps", swaps);
  learn("downloads", downloads);
}

// For gateways without /events.
async function poll() {
  for (let isFirst = true; ; isFirst = false) {
    await isLookedAt();
    try {
      await learnStatus(await read("/status"));
      learn("queue", await readIfThere("/queue"));
      learnResources(await read("/resources"));
      if (isFirst || state.swaps) await loadRest();
      tell("Read every 5 s");
    } catch (error) {
      if (error.status === 401 || error.status === 403) await askForKey(error);
      else tell("Connection lost. Trying again…");
      report(error);
    }
    await pause(POLL_MS);
  }
}

// Of the network and the gateway nothing is said but that the connection is lost; what is wrong in here is a bug.
function report(error) {
  if (!(error instanceof ApiError)) console.error(error);
}

const tell = (text) => say(find("connection"), text);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
