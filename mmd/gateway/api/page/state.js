// What is known of the gateway, and who draws it.

export const state = {
  status: null, // the records of the API, null before they have come
  models: null,
  queue: null,
  resources: null,
  history: null,
  swaps: null,
  downloads: null,
  heard: { status: 0, queue: 0 }, // when: their seconds go on from there
  running: new Map(), // model -> the verb that a button has begun
};

const views = [];
let isDue = false;

export function draw(...functions) {
  views.push(...functions);
}

export function changed() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const view of views) view(state);
  });
}

export function learn(part, record) {
  state[part] = record;
  if (part in state.heard) state.heard[part] = performance.now();
  changed();
}

// Seconds since the record was true.
export const since = (part) => (performance.now() - state.heard[part]) / 1000;

const HOUR_MS = 3_600_000;
const NEWEST = 20;

export function learnResources(resources) {
  learn("resources", resources);
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
  // The newest moves along until it is an interval away from the one before it.
  if (kept.length > 1 && now - Date.parse(kept.at(-2).at) < history.interval_seconds * 1000) kept.pop();
  learn("history", { ...history, samples: [...kept, sample] });
}

// One that ended while they were being read comes twice.
export function learnSwap(swap) {
  const isSame = ({ at, model }) => at === swap.at && model === swap.model;
  if (state.swaps && !state.swaps.some(isSame)) learn("swaps", [...state.swaps, swap].slice(-NEWEST));
}

// Jobs keep their order, the oldest first.
export function learnDownload(job) {
  const before = state.downloads ?? [];
  const isKnown = before.some(({ id }) => id === job.id);
  learn("downloads", isKnown ? before.map((each) => (each.id === job.id ? job : each)) : [...before, job]);
}
