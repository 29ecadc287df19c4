// An error's two lines, what is wrong and what to do, and what the engine said before.

import { each, element } from "./dom.js";
import { LastLines } from "./last_lines.js";

export class Failure {
  #alert = element("div", { role: "alert" });
  #lastLines = new LastLines();

  constructor() {
    this.node = element("div", { class: "failure" }, this.#alert, this.#lastLines.node);
  }

  // null takes it away. What is there already stays untouched: it would be read out anew.
  show(error) {
    const lines = error ? [error.message, error.hint] : [];
    each(this.#alert, lines, (line) => line, (line) => ({ node: element("p", {}, line), update() {} }));
    this.#lastLines.update(error?.engineLines);
  }
}
