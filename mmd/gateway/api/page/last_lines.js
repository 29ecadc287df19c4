// What an engine said last, for who wants to know more than its error.

import { element, say } from "./dom.js";

export class LastLines {
  #text = element("pre", { tabindex: "0", "aria-label": "The engine's last lines" }); // reached by keyboard, as it may scroll

  constructor() {
    this.node = element("details", { class: "last-lines", hidden: "" }, element("summary", {}, "The engine's last lines"), this.#text);
  }

  update(lines) {
    this.node.hidden = !lines?.length;
    say(this.#text, (lines ?? []).join("\n"));
  }
}
