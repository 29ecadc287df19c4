// An error: its message, its hint, and the engine's last lines.

import { element, syncViews } from "./dom.js";
import { LastLines } from "./last_lines.js";

export class ErrorBox {
  #alert = element("div", { role: "alert" });
  #lastLines = new LastLines();

  constructor() {
    this.node = element("div", { class: "failure" }, this.#alert, this.#lastLines.node);
  }

  // null removes the error. Unchanged lines stay in place: a screen reader would announce them again.
  show(error) {
    const lines = error ? [error.message, error.hint] : [];
    syncViews(this.#alert, lines, (line) => line, (line) => ({ node: element("p", {}, line), update() {} }));
    this.#lastLines.update(error?.engineLines);
  }
}
