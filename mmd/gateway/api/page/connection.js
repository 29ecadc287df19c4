// The connection to the gateway: follows its events, reconnects, and polls a gateway that has no events.
// Only while the tab is visible: a browser opens six connections to a server, shared by all tabs.

import { ApiError, events, getJson, getJsonIfPresent } from "./api.js";
import { askForKey } from "./key_form.js";
import { find, setText } from "./dom.js";
import { addResources, addSwap, state, update, updateDownload } from "./state.js";

const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 10_000;
const POLL_MS = 5_000;
const SILENCE_MS = 60_000; // resources events come every few seconds: after so long without one the gateway is unreachable

export async function stayConnected() {
  for (let delay = FIRST_DELAY_MS; ; delay = Math.min(delay * 2, MAX_DELAY_MS)) {
    await becomeVisible();
    try {
      await followEvents(() => (delay = FIRST_DELAY_MS));
    } catch (error) {
      if (error.status === 404) return poll();
      if (error.status === 401 || error.status === 403) {
        await askForKey(error);
        delay = FIRST_DELAY_MS;
        continue;
      }
      logBug(error);
    }
    if (document.hidden) continue;
    showConnection("Connection lost. Reconnecting…");
    await pause(delay);
  }
}

async function becomeVisible() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

async function followEvents(onEvent) {
  const silence = new AbortController();
  const { signal } = silence;
  const restartTimer = () => setTimeout(() => silence.abort(), SILENCE_MS);
  document.addEventListener("visibilitychange", () => document.hidden && silence.abort(), { signal });
  let timer = restartTimer();
  let isFirst = true;
  try {
    for await (const { kind, data } of events(signal)) {
      clearTimeout(timer);
      timer = restartTimer();
      if (isFirst) await loadHistory(); // once events arrive: a change in between is in one or the other
      isFirst = false;
      onEvent();
      showConnection("Live");
      await handle(kind, data);
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

async function handle(kind, data) {
  if (kind === "status") await updateStatus(data);
  else if (kind === "queue") update("queue", data);
  else if (kind === "resources") addResources(data);
  else if (kind === "swap") addSwap(data);
  else if (kind === "download") {
    updateDownload(data);
    if (data.state === "done") await updateModels();
  }
}

export async function updateStatus(status) {
  update("status", status);
  await updateModels();
}

// Models and setups have no event of their own: they change with the status and with downloads.
async function updateModels() {
  const listed = await getJson("/models");
  update("setups", listed.filter(({ type }) => type === "setup"));
  update("models", listed.filter(({ type }) => type !== "setup"));
}

async function loadHistory() {
  const paths = ["/resources/history", "/swaps?limit=20", "/hf/downloads"];
  const [history, swaps, downloads] = await Promise.all(paths.map((path) => getJsonIfPresent(path)));
  if (history) update("history", history);
  update("swaps", swaps);
  update("downloads", downloads);
}

// For gateways without /events.
async function poll() {
  for (let isFirst = true; ; isFirst = false) {
    await becomeVisible();
    try {
      await updateStatus(await getJson("/status"));
      update("queue", await getJsonIfPresent("/queue"));
      addResources(await getJson("/resources"));
      if (isFirst || state.swaps) await loadHistory();
      showConnection("Updated every 5 s");
    } catch (error) {
      if (error.status === 401 || error.status === 403) await askForKey(error);
      else showConnection("Connection lost. Reconnecting…");
      logBug(error);
    }
    await pause(POLL_MS);
  }
}

// Errors of the network and the gateway show as a lost connection; all others are bugs of the page.
function logBug(error) {
  if (!(error instanceof ApiError)) console.error(error);
}

const showConnection = (text) => setText(find("connection"), text);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
