// Who has the GPU, who is on the way, who failed, who sleeps.

import { Actions } from "./actions.js";
import { each, element, find, say, set } from "./dom.js";
import { gib, quoted, seconds, tokens } from "./format.js";
import { LastLines } from "./last_lines.js";
import { since } from "./state.js";

export function drawNow({ status, models, swaps }) {
  if (!status) return;
  const facts = new Map((models ?? []).map((model) => [model.id, model]));
  const activeFirst = [...(status.resident ?? [])].sort((a, b) => (b === status.active) - (a === status.active));
  const residents = activeFirst.map((id) => ({ id, facts: facts.get(id), isActive: id === status.active }));
  const starting = status.starting ?? [];
  const sleeping = (status.sleeping ?? []).map((sleeper) => ({ ...sleeper, facts: facts.get(sleeper.id) }));
  each(find("resident"), residents, idOf, resident);
  each(find("starting"), starting, idOf, starter);
  const failures = (status.failed ?? []).map((failure) => ({ ...failure, lines: lastLines(swaps, failure.id) }));
  each(find("failed"), failures, idOf, failed);
  each(find("sleeping"), sleeping, idOf, sleeper);
  find("nobody").hidden = residents.length + starting.length > 0;
  find("sleepers").hidden = sleeping.length === 0;
  announce(status);
}

const idOf = ({ id }) => id;

// What the engine said before it failed, if that was the last swap to the model.
const lastLines = (swaps, id) => (swaps ?? []).findLast(({ model }) => model === id)?.engine_lines;

function announce({ active, starting, failed: failures }) {
  const sentences = [
    active ? `${active} is active.` : "No model is active.",
    ...(starting ?? []).map(({ id }) => `${id} is starting.`),
    ...(failures ?? []).map(({ id }) => `${id} failed.`),
  ];
  say(find("announcement"), sentences.join(" "));
  document.title = active ? `${active} · mmd` : "mmd";
}

function card(id, kind, ...content) {
  const actions = new Actions(id);
  const state = element("span", { class: `state ${kind}` }, kind);
  const head = element("div", { class: "card-head" }, element("h3", {}, id), state, actions.node);
  return { node: element("li", { class: `card ${kind}` }, head, ...content, actions.failure), actions, state };
}

function facts(model) {
  const context = model.context && `context ${tokens(model.context)}`;
  const weights = model.vram_bytes && `weights ${gib(model.vram_bytes)}`;
  return [model.type, model.engine, model.quant, context, weights];
}

const joined = (words) => words.filter(Boolean).join(" · ");

function resident(id) {
  const line = element("p", { class: "facts" });
  const { node, actions, state } = card(id, "active", line);
  return {
    node,
    update({ facts: model, isActive }) {
      const kind = isActive ? "active" : "resident";
      set(node, "class", `card ${kind}`);
      set(state, "class", `state ${kind}`);
      say(state, kind);
      say(line, model ? joined(facts(model)) : "");
      actions.update(kind);
    },
  };
}

function starter(id) {
  const bar = element("progress", { "aria-label": `Start of ${id}` });
  const line = element("p", { class: "facts" });
  const { node, actions } = card(id, "starting", bar, line);
  return {
    node,
    update({ seconds: taken, expected_seconds: expected }) {
      const now = taken + since("status");
      if (expected) {
        bar.max = expected;
        bar.value = Math.min(now, expected);
      } else {
        bar.removeAttribute("value");
      }
      say(line, expected ? `${seconds(Math.floor(now))} of about ${seconds(expected)}` : `for ${seconds(Math.floor(now))}`);
      actions.update("starting");
    },
  };
}

function failed(id) {
  const command = `mmd logs ${quoted(id)}`;
  const code = element("code", {}, command);
  const copy = element("button", { type: "button", "aria-label": `Copy ${command}` }, "Copy");
  copy.addEventListener("click", () => copyOut(code, copy));
  const reason = element("p");
  const said = new LastLines();
  const { node, actions } = card(id, "failed", reason, element("p", { class: "command" }, code, copy), said.node);
  return {
    node,
    update(record) {
      say(reason, record.reason);
      said.update(record.lines);
      actions.update("failed");
    },
  };
}

async function copyOut(code, button) {
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
    say(button, "Copied");
  } catch {
    say(button, "Selected"); // browsers give the clipboard to HTTPS and this machine only
  }
  button.addEventListener("blur", () => say(button, "Copy"), { once: true });
}

function sleeper(id) {
  const line = element("p", { class: "facts" });
  const { node, actions } = card(id, "sleeping", line);
  return {
    node,
    update({ level, ram_bytes: ram, wake_seconds: wake, facts: model }) {
      const wakes = wake === null ? "" : `wakes in about ${seconds(wake)}`;
      say(line, joined([wakes, `${gib(ram)} RAM`, `level ${level}`, model?.type]));
      actions.update("sleeping");
    },
  };
}
