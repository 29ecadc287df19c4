// The buttons of one model, and the error of the last one pressed.

import { runVerb } from "./api.js";
import { updateStatus } from "./connection.js";
import { element, setAttribute, setText } from "./dom.js";
import { ErrorBox } from "./error_box.js";
import { redraw, state } from "./state.js";

const VERBS = {
  activate: { label: "Activate", doing: "Activating…", does: "Load or wake the model; others make room for it" },
  sleep: { label: "Sleep", doing: "Going to sleep…", does: "Free its VRAM and keep it in RAM" },
  stop: { label: "Stop", doing: "Stopping…", does: "End its engine and free its VRAM and RAM" },
};

const VERBS_BY_STATUS = {
  active: ["sleep", "stop"],
  resident: ["activate", "sleep", "stop"],
  starting: ["stop"],
  stranded: ["activate", "stop"],
  sleeping: ["activate", "stop"],
  failed: ["activate"],
  absent: ["activate"],
};

export class Actions {
  #model;
  #buttons = new Map();
  #errorBox = new ErrorBox();

  // `model` is the id of a model or the name of a setup; `titles` replaces what the buttons say that they do.
  constructor(model, titles = {}) {
    this.#model = model;
    this.node = element("div", { class: "actions", role: "group", "aria-label": model });
    this.errorNode = this.#errorBox.node;
    for (const [verb, { label, does }] of Object.entries(VERBS)) {
      const button = element("button", { type: "button", "aria-label": `${label} ${model}`, title: titles[verb] ?? does });
      button.addEventListener("click", () => this.#press(verb));
      this.#buttons.set(verb, button);
      this.node.append(button);
    }
  }

  update(status) {
    this.offer(VERBS_BY_STATUS[status] ?? []);
  }

  offer(verbs) {
    const running = state.running.get(this.#model);
    const focused = [...this.#buttons.values()].find((button) => button === document.activeElement);
    for (const [verb, button] of this.#buttons) {
      button.hidden = verb !== running && !verbs.includes(verb);
      // Not `disabled`, which would drop the focus. An activation in progress can be stopped.
      setAttribute(button, "aria-disabled", running !== undefined && !(verb === "stop" && running === "activate"));
      setText(button, verb === running ? VERBS[verb].doing : VERBS[verb].label);
    }
    if (focused?.hidden) [...this.#buttons.values()].find((button) => !button.hidden)?.focus();
  }

  async #press(verb) {
    if (this.#buttons.get(verb).getAttribute("aria-disabled") === "true") return;
    this.#errorBox.show(null);
    state.running.set(this.#model, verb);
    redraw();
    try {
      await updateStatus(await runVerb(verb, this.#model));
    } catch (error) {
      this.#errorBox.show(error);
    } finally {
      if (state.running.get(this.#model) === verb) state.running.delete(this.#model);
      redraw();
    }
  }
}
