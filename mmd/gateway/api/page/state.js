// The state of the gateway as the page knows it, and the functions that draw it.

export const state = {
  status: null, // records of the API; null until they arrive
  models: null,
  setups: null,
  queue: null,
  resources: null,
  history: null,
  swaps: null,
  downloads: null,
  receivedAt: { status: 0, queue: 0 }, // their seconds count on from then
  running: new Map(), // model -> the verb of a button whose request is in progress
};

const views = [];
let isDue = false;

export function addViews(...functions) {
  views.push(...functions);
}

export function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const view of views) view(state);
  });
}

export function update(part, record) {
  state[part] = record;
  if (part in state.receivedAt) state.receivedAt[part] = performance.now();
  redraw();
}

// Seconds since the record arrived.
export const since = (part) => (performance.now() - state.receivedAt[part]) / 1000;

const HOUR_MS = 3_600_000;
const NEWEST = 20;

export function addResources(resources) {
  update("resources", resources);
  const history = state.history ?? { interval_seconds: 10, samples: [] };
  const now = Date.now();
  const sample = {
    at: new Date(now).toISOString(),
    vram_used_bytes: resources.vram.used_bytes,
    vram_total_bytes: resources.vram.total_bytes,
    ram_used_bytes: resources.ram.used_bytes,
    ram_total_bytes: resources.ram.total_bytes,
  };
  const kept = history.samples.filter(({ at }) => now - Date.parse(at) < HOUR_MS);
  // Replace the newest sample until it is an interval away from the one before it.
  if (kept.length > 1 && now - Date.parse(kept.at(-2).at) < history.interval_seconds * 1000) kept.pop();
  update("history", { ...history, samples: [...kept, sample] });
}

// A swap that ended while the list was read arrives twice.
export function addSwap(swap) {
  const isSame = ({ at, model }) => at === swap.at && model === swap.model;
  if (state.swaps && !state.swaps.some(isSame)) update("swaps", [...state.swaps, swap].slice(-NEWEST));
}

// Jobs stay in order, oldest first.
export function updateDownload(job) {
  const before = state.downloads ?? [];
  const isKnown = before.some(({ id }) => id === job.id);
  update("downloads", isKnown ? before.map((each) => (each.id === job.id ? job : each)) : [...before, job]);
}
