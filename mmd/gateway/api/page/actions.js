// The buttons of one model, and what came of pressing them.

import { act } from "./api.js";
import { learnStatus } from "./connection.js";
import { element, say, set } from "./dom.js";
import { Failure } from "./failure.js";
import { changed, state } from "./state.js";

const VERBS = {
  activate: { label: "Activate", doing: "Activating…", does: "Have it answer; others make room for it" },
  sleep: { label: "Sleep", doing: "Going to sleep…", does: "Free its VRAM, keep it in RAM" },
  stop: { label: "Stop", doing: "Stopping…", does: "End its engine, free its VRAM and RAM" },
};

const OFFERED = {
  active: ["sleep", "stop"],
  resident: ["activate", "sleep", "stop"],
  starting: ["stop"],
  sleeping: ["activate", "stop"],
  failed: ["activate"],
  absent: ["activate"],
};

export class Actions {
  #model;
  #buttons = new Map();
  #failure = new Failure();

  constructor(model) {
    this.#model = model;
    this.node = element("div", { class: "actions", role: "group", "aria-label": model });
    this.failure = this.#failure.node;
    for (const [verb, { label, does }] of Object.entries(VERBS)) {
      const button = element("button", { type: "button", "aria-label": `${label} ${model}`, title: does });
      button.addEventListener("click", () => this.#press(verb));
      this.#buttons.set(verb, button);
      this.node.append(button);
    }
  }

  update(status) {
    const running = state.running.get(this.#model);
    const focused = [...this.#buttons.values()].find((button) => button === document.activeElement);
    for (const [verb, button] of this.#buttons) {
      button.hidden = verb !== running && !(OFFERED[status] ?? []).includes(verb);
      // Not `disabled`, which would take the focus away. What takes long can be stopped.
      set(button, "aria-disabled", running !== undefined && !(verb === "stop" && running === "activate"));
      say(button, verb === running ? VERBS[verb].doing : VERBS[verb].label);
    }
    if (focused?.hidden) [...this.#buttons.values()].find((button) => !button.hidden)?.focus();
  }

  async #press(verb) {
    if (this.#buttons.get(verb).getAttribute("aria-disabled") === "true") return;
    this.#failure.show(null);
    state.running.set(this.#model, verb);
    changed();
    try {
      await learnStatus(await act(verb, this.#model));
    } catch (error) {
      this.#failure.show(error);
    } finally {
      if (state.running.get(this.#model) === verb) state.running.delete(this.#model);
      changed();
    }
  }
}
