// Who waits for which model, and what is being answered.

import { each, element, find, say } from "./dom.js";
import { seconds } from "./format.js";
import { since } from "./state.js";

export function drawQueue({ queue }) {
  find("queue").hidden = !queue;
  if (!queue) return;
  each(find("turns"), queue.turns, ({ model }) => model, turn);
  const answered = queue.in_flight.map(({ model, requests }) => `${model} (${requests})`).join(", ");
  const waits = queue.turns.length ? "" : "Nobody waits. ";
  say(find("in-flight"), waits + (answered ? `Being answered: ${answered}.` : "Nothing is being answered."));
}

function turn(model) {
  const line = element("p", { class: "facts" });
  return {
    node: element("li", { class: "card" }, element("h3", {}, model), line),
    update({ waiting, waited_seconds: waited, expected_seconds: expected }) {
      const passed = since("queue");
      const words = [`${waiting} waiting`, `longest for ${seconds(Math.floor(waited + passed))}`];
      if (expected !== null) words.push(`expected in ${seconds(Math.max(0, Math.ceil(expected - passed)))}`);
      say(line, words.join(" · "));
    },
  };
}
