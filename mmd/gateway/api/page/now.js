// The panel "Now": resident, starting, failed and sleeping models, leases, and which model was unloaded for which.

import { Actions } from "./actions.js";
import { held } from "./devices.js";
import { element, find, setAttribute, setText, syncViews } from "./dom.js";
import { clock, gib, quoted, seconds, tokens } from "./format.js";
import { LastLines } from "./last_lines.js";
import { since } from "./state.js";

export function drawNow({ status, models, swaps }) {
  if (!status) return;
  const facts = new Map((models ?? []).map((model) => [model.id, model]));
  const activeFirst = [...(status.resident ?? [])].sort((a, b) => (b.id === status.active) - (a.id === status.active));
  const withFacts = (one) => ({ ...one, facts: facts.get(one.id), held: held(one.devices, status) });
  const residents = activeFirst.map((one) => ({ ...withFacts(one), isActive: one.id === status.active }));
  const starting = (status.starting ?? []).map(withFacts);
  const stranded = (status.stranded ?? []).map(withFacts);
  const sleeping = (status.sleeping ?? []).map(withFacts);
  syncViews(find("resident"), residents, idOf, residentCard);
  syncViews(find("starting"), starting, idOf, startingCard);
  syncViews(find("stranded"), stranded, idOf, strandedCard);
  syncViews(find("unloaded"), status.unloaded ?? [], idOf, unloadedEntry);
  const failures = (status.failed ?? []).map((failure) => ({ ...failure, lines: lastLines(swaps, failure.id) }));
  syncViews(find("failed"), failures, idOf, failedCard);
  syncViews(find("sleeping"), sleeping, idOf, sleepingCard);
  find("none-resident").hidden = residents.length + starting.length > 0;
  find("sleepers").hidden = sleeping.length === 0;
  announce(status);
}

const idOf = ({ id }) => id;

// The engine's last log lines, if the last swap to this model failed.
const lastLines = (swaps, id) => (swaps ?? []).findLast(({ model }) => model === id)?.engine_lines;

function announce({ active, starting, stranded, failed: failures }) {
  const sentences = [
    active ? `${active} is active.` : "No model is active.",
    ...(starting ?? []).map(({ id }) => `${id} is starting.`),
    ...(stranded ?? []).map(({ id }) => `${id} is stranded.`),
    ...(failures ?? []).map(({ id }) => `${id} failed.`),
  ];
  setText(find("announcement"), sentences.join(" "));
  document.title = active ? `${active} · mmd` : "mmd";
}

function card(id, kind, ...content) {
  const actions = new Actions(id);
  const state = element("span", { class: `state ${kind}` }, kind);
  const head = element("div", { class: "card-head" }, element("h3", {}, id), state, actions.node);
  return { node: element("li", { class: `card ${kind}` }, head, ...content, actions.errorNode), actions, state };
}

function facts(model) {
  const context = model.context && `context ${tokens(model.context)}`;
  const weights = model.vram_bytes && `weights ${gib(model.vram_bytes)}`;
  return [model.type, model.engine, model.quant, context, weights];
}

const join = (words) => words.filter(Boolean).join(" · ");

function residentCard(id) {
  const line = element("p", { class: "facts" });
  const { node, actions, state } = card(id, "active", line);
  return {
    node,
    update({ facts: model, isActive, held: memory }) {
      const kind = isActive ? "active" : "resident";
      setAttribute(node, "class", `card ${kind}`);
      setAttribute(state, "class", `state ${kind}`);
      setText(state, kind);
      setText(line, join([memory, ...(model ? facts(model) : [])]));
      actions.update(kind);
    },
  };
}

function startingCard(id) {
  const bar = element("progress", { "aria-label": `Start of ${id}` });
  const line = element("p", { class: "facts" });
  const { node, actions } = card(id, "starting", bar, line);
  return {
    node,
    update({ seconds: taken, expected_seconds: expected, held: memory }) {
      const now = taken + since("status");
      if (expected) {
        bar.max = expected;
        bar.value = Math.min(now, expected);
      } else {
        bar.removeAttribute("value");
      }
      const took = seconds(Math.floor(now));
      setText(line, join([expected ? `${took} of about ${seconds(expected)}` : `for ${took}`, memory]));
      actions.update("starting");
    },
  };
}

function strandedCard(id) {
  const line = element("p", { class: "facts" });
  const { node, actions } = card(id, "stranded", line);
  return {
    node,
    update({ held: memory }) {
      setText(line, join(["awake without its token: the next swap ends its engine", memory]));
      actions.update("stranded");
    },
  };
}

function unloadedEntry(id) {
  const node = element("li");
  return {
    node,
    update({ unloaded_for: other, why, at }) {
      setText(node, `${id} was unloaded for ${other}, ${clock(new Date(at))}${why ? `: ${why}` : ""}`);
    },
  };
}

function failedCard(id) {
  const command = `mmd logs ${quoted(id)}`;
  const code = element("code", {}, command);
  const copy = element("button", { type: "button", "aria-label": `Copy ${command}` }, "Copy");
  copy.addEventListener("click", () => copyCommand(code, copy));
  const reason = element("p");
  const log = new LastLines();
  const { node, actions } = card(id, "failed", reason, element("p", { class: "command" }, code, copy), log.node);
  return {
    node,
    update(record) {
      setText(reason, record.reason);
      log.update(record.lines);
      actions.update("failed");
    },
  };
}

async function copyCommand(code, button) {
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
    setText(button, "Copied");
  } catch {
    setText(button, "Selected"); // browsers allow the clipboard only over HTTPS and on this machine
  }
  button.addEventListener("blur", () => setText(button, "Copy"), { once: true });
}

function sleepingCard(id) {
  const line = element("p", { class: "facts" });
  const { node, actions } = card(id, "sleeping", line);
  return {
    node,
    update({ level, ram_bytes: ram, wake_seconds: wake, facts: model, held: memory }) {
      const wakes = wake === null ? "" : `wakes in about ${seconds(wake)}`;
      setText(line, join([wakes, `${gib(ram)} RAM`, `level ${level}`, memory && `keeps ${memory}`, model?.type]));
      actions.update("sleeping");
    },
  };
}
