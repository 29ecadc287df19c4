// Recent swaps, newest first, each with a bar of its phases; all bars have one scale.

import { drawn, each, element, find, say, set } from "./dom.js";
import { clock, seconds } from "./format.js";
import { LastLines } from "./last_lines.js";

const WIDTH = 1000;
const LEAST_SECONDS = 0.0005; // what is shorter was nothing
const NAMES = {
  drain: "drain",
  release: "release",
  vram_free: "VRAM free",
  load: "load",
  wake: "wake",
  canary: "canary",
  other: "other",
};

export function drawSwaps({ swaps }) {
  find("swaps").hidden = !swaps;
  if (!swaps) return;
  const longest = Math.max(...swaps.map(total), 0.001);
  const records = swaps.map((swap) => ({ swap, longest })).reverse();
  each(find("swap-list"), records, ({ swap }) => `${swap.at} ${swap.model}`, entry);
  each(find("legend"), swaps.length ? Object.keys(NAMES) : [], (phase) => phase, legend);
  find("no-swaps").hidden = swaps.length > 0;
  find("legend").hidden = swaps.length === 0;
  find("scale").hidden = swaps.length === 0;
  each(find("scale"), [0, longest / 2, longest].map(seconds), (text) => text, (text) => ({ node: element("span", {}, text), update() {} }));
}

// What running answers held up comes before what the swap itself took.
const total = ({ seconds: taken, phases }) => taken + (phases.drain ?? 0);

// Phases one after the other: those that are a part of another are taken out of it.
function segments(swap) {
  const { drain = 0, release = 0, vram_free: free = 0, load = 0, wake = 0, canary = 0 } = swap.phases;
  const known = { drain, release: release - free, vram_free: free, load, wake: wake - canary, canary };
  const sum = Object.values(known).reduce((a, b) => a + b, 0);
  const all = { ...known, other: total(swap) - sum };
  return Object.entries(all).filter(([, taken]) => taken > LEAST_SECONDS);
}

function legend(phase) {
  const swatch = drawn("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, drawn("rect", { class: phase, width: 10, height: 10 }));
  return { node: element("li", {}, swatch, NAMES[phase]), update() {} };
}

function entry() {
  const time = element("time");
  const model = element("span", { class: "name" });
  const took = element("span", { class: "took" });
  const outcome = element("span");
  const why = element("span", { class: "why" });
  const bar = drawn("svg", { class: "bar", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const phases = element("span", { class: "phases" });
  const head = element("div", { class: "swap-head" }, time, model, outcome, took);
  const foot = element("div", { class: "swap-foot" }, phases, why);
  const said = new LastLines();
  return {
    node: element("li", {}, head, bar, foot, said.node),
    update({ swap, longest }) {
      set(time, "datetime", swap.at);
      say(time, clock(new Date(swap.at)));
      say(model, swap.model);
      say(took, seconds(total(swap)));
      say(outcome, swap.outcome);
      set(outcome, "class", `state ${swap.outcome}`);
      say(why, (swap.cause || swap.why) + (swap.evicted ? `, in place of ${swap.evicted}` : ""));
      said.update(swap.engine_lines);
      const parts = segments(swap);
      say(phases, parts.map(([phase, taken]) => `${NAMES[phase]} ${seconds(taken)}`).join(" · "));
      each(bar, placed(parts, longest), ({ phase }) => phase, rectangle);
    },
  };
}

function placed(parts, longest) {
  let x = 0;
  return parts.map(([phase, taken]) => {
    const width = (WIDTH * taken) / longest;
    x += width;
    return { phase, taken, x: x - width, width };
  });
}

function rectangle(phase) {
  const title = drawn("title");
  const node = drawn("rect", { class: phase, height: 10 }, title);
  return {
    node,
    update({ taken, x, width }) {
      set(node, "x", x.toFixed(1));
      set(node, "width", Math.max(width, 2).toFixed(1));
      say(title, `${NAMES[phase]} ${seconds(taken)}`);
    },
  };
}
