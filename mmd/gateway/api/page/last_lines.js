// The last lines of an engine's log, collapsed.

import { element, setText } from "./dom.js";

export class LastLines {
  #text = element("pre", { tabindex: "0", "aria-label": "The engine's last lines" }); // focusable, so that the keyboard can scroll it

  constructor() {
    this.node = element("details", { class: "last-lines", hidden: "" }, element("summary", {}, "The engine's last lines"), this.#text);
  }

  update(lines) {
    this.node.hidden = !lines?.length;
    setText(this.#text, (lines ?? []).join("\n"));
  }
}
