// The panel "Queue": which models requests wait for, and how many are in progress.

import { element, find, setText, syncViews } from "./dom.js";
import { seconds } from "./format.js";
import { since } from "./state.js";

export function drawQueue({ queue }) {
  find("queue").hidden = !queue;
  if (!queue) return;
  syncViews(find("turns"), queue.turns, ({ model }) => model, turnCard);
  const inProgress = queue.in_flight.map(({ model, requests }) => `${model} (${requests})`).join(", ");
  const waiting = queue.turns.length ? "" : "No requests are waiting. ";
  setText(find("in-flight"), waiting + (inProgress ? `In progress: ${inProgress}.` : "None are in progress."));
}

function turnCard(model) {
  const line = element("p", { class: "facts" });
  return {
    node: element("li", { class: "card" }, element("h3", {}, model), line),
    update({ waiting, waited_seconds: waited, expected_seconds: expected, waits_for: waitsFor }) {
      const passed = since("queue");
      const words = [`${waiting} waiting`, `longest for ${seconds(Math.floor(waited + passed))}`];
      if (expected !== null) words.push(`expected in ${seconds(Math.max(0, Math.ceil(expected - passed)))}`);
      for (const { model: other, requests } of waitsFor) {
        words.push(`until ${other} has finished ${requests} response${requests === 1 ? "" : "s"}`);
      }
      setText(line, words.join(" · "));
    },
  };
}
