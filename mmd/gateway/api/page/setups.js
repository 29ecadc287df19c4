// The panel "Setups": named sets of models, the state of each of their models, and their buttons.

import { Actions } from "./actions.js";
import { element, find, setAttribute, setText, syncViews } from "./dom.js";
import { gib } from "./format.js";

export function drawSetups({ setups, models }) {
  if (!setups) return;
  const states = new Map((models ?? []).map(({ id, status }) => [id, status]));
  syncViews(find("setup-list"), setups.map((setup) => ({ ...setup, states })), ({ id }) => id, card);
  find("setups").hidden = setups.length === 0;
}

function card(id) {
  const actions = new Actions(id, { activate: "Load or wake its models together; others make room for them" });
  const state = element("span");
  const head = element("div", { class: "card-head" }, element("h3", {}, id), state, actions.node);
  const note = element("p", { class: "facts" });
  const members = element("ul", { class: "members" });
  const problem = element("p", { class: "failure" });
  return {
    node: element("li", { class: "card" }, head, note, members, problem, actions.errorNode),
    update(setup) {
      setText(state, setup.status);
      setAttribute(state, "class", `state ${setup.status}`);
      const weights = setup.vram_bytes ? `weights ${gib(setup.vram_bytes)}` : "";
      const exposed = setup.expose?.length ? `exposes ${setup.expose.join(", ")}` : "";
      setText(note, [setup.note, weights, exposed].filter(Boolean).join(" · "));
      syncViews(members, setup.models.map((name) => ({ name, status: setup.states.get(name) })), ({ name }) => name, member);
      setText(problem, setup.problem);
      problem.hidden = !setup.problem;
      actions.offer(verbs(setup));
    },
  };
}

function member(name) {
  const state = element("span");
  return {
    node: element("li", {}, element("span", { class: "name" }, name), state),
    update({ status }) {
      setText(state, status ?? "not registered");
      setAttribute(state, "class", `state ${status ?? "failed"}`);
    },
  };
}

// A setup is activated as long as one of its models is missing, and put to sleep or stopped as long as one is there.
function verbs({ models, states, problem }) {
  const here = models.map((name) => states.get(name));
  const isUp = (status) => status === "active" || status === "resident";
  return [
    ...(!problem && !here.every(isUp) ? ["activate"] : []),
    ...(here.some(isUp) ? ["sleep"] : []),
    ...(here.some((status) => isUp(status) || status === "sleeping" || status === "starting") ? ["stop"] : []),
  ];
}
