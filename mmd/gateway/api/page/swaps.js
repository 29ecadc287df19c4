// Recent swaps, newest first, each with a bar of its phases. All bars share one scale.

import { element, find, setAttribute, setText, svgElement, syncViews } from "./dom.js";
import { clock, seconds } from "./format.js";
import { LastLines } from "./last_lines.js";

const WIDTH = 1000;
const MIN_SECONDS = 0.0005; // shorter phases are rounding errors
const NAMES = {
  drain: "drain",
  release: "release",
  vram_free: "VRAM free",
  load: "load",
  wake: "wake",
  canary: "wake check",
  other: "other",
};

export function drawSwaps({ swaps }) {
  find("swaps").hidden = !swaps;
  if (!swaps) return;
  const longest = Math.max(...swaps.map(total), 0.001);
  const records = swaps.map((swap) => ({ swap, longest })).reverse();
  syncViews(find("swap-list"), records, ({ swap }) => `${swap.at} ${swap.model}`, swapEntry);
  syncViews(find("legend"), swaps.length ? Object.keys(NAMES) : [], (phase) => phase, legendEntry);
  find("no-swaps").hidden = swaps.length > 0;
  find("legend").hidden = swaps.length === 0;
  find("scale").hidden = swaps.length === 0;
  syncViews(find("scale"), [0, longest / 2, longest].map(seconds), (text) => text, (text) => ({ node: element("span", {}, text), update() {} }));
}

// The swap's own time plus the drain, which comes before it.
const total = ({ seconds: taken, phases }) => taken + (phases.drain ?? 0);

// Older gateways name one model, or null.
function replaced({ evicted, why_evicted: reasons }) {
  const names = [evicted ?? []].flat();
  const words = names.map((name) => (reasons?.[name] ? `${name} (${reasons[name]})` : name));
  return words.length ? `, replacing ${words.join(", ")}` : "";
}

// The phases in order. A phase that is part of another is subtracted from it.
function segments(swap) {
  const { drain = 0, release = 0, vram_free: free = 0, load = 0, wake = 0, canary = 0 } = swap.phases;
  const known = { drain, release: release - free, vram_free: free, load, wake: wake - canary, canary };
  const sum = Object.values(known).reduce((a, b) => a + b, 0);
  const all = { ...known, other: total(swap) - sum };
  return Object.entries(all).filter(([, taken]) => taken > MIN_SECONDS);
}

function legendEntry(phase) {
  const swatch = svgElement("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, svgElement("rect", { class: phase, width: 10, height: 10 }));
  return { node: element("li", {}, swatch, NAMES[phase]), update() {} };
}

function swapEntry() {
  const time = element("time");
  const model = element("span", { class: "name" });
  const took = element("span", { class: "took" });
  const outcome = element("span");
  const why = element("span", { class: "why" });
  const bar = svgElement("svg", { class: "bar", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const phases = element("span", { class: "phases" });
  const head = element("div", { class: "swap-head" }, time, model, outcome, took);
  const foot = element("div", { class: "swap-foot" }, phases, why);
  const lastLines = new LastLines();
  return {
    node: element("li", {}, head, bar, foot, lastLines.node),
    update({ swap, longest }) {
      setAttribute(time, "datetime", swap.at);
      setText(time, clock(new Date(swap.at)));
      setText(model, swap.model);
      setText(took, seconds(total(swap)));
      setText(outcome, swap.outcome);
      setAttribute(outcome, "class", `state ${swap.outcome}`);
      setText(why, (swap.cause || swap.why) + replaced(swap));
      lastLines.update(swap.engine_lines);
      const parts = segments(swap);
      setText(phases, parts.map(([phase, taken]) => `${NAMES[phase]} ${seconds(taken)}`).join(" · "));
      syncViews(bar, withPositions(parts, longest), ({ phase }) => phase, phaseRectangle);
    },
  };
}

function withPositions(parts, longest) {
  let x = 0;
  return parts.map(([phase, taken]) => {
    const width = (WIDTH * taken) / longest;
    x += width;
    return { phase, taken, x: x - width, width };
  });
}

function phaseRectangle(phase) {
  const title = svgElement("title");
  const node = svgElement("rect", { class: phase, height: 10 }, title);
  return {
    node,
    update({ taken, x, width }) {
      setAttribute(node, "x", x.toFixed(1));
      setAttribute(node, "width", Math.max(width, 2).toFixed(1));
      setText(title, `${NAMES[phase]} ${seconds(taken)}`);
    },
  };
}
