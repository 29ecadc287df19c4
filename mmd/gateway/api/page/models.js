// The table of registered models, with their buttons.

import { Actions } from "./actions.js";
import { element, find, setAttribute, setText, syncViews } from "./dom.js";
import { gib, tokens } from "./format.js";

export function drawModels({ models }) {
  if (!models) return;
  syncViews(find("models"), models, ({ id }) => id, row);
  find("models").hidden = models.length === 0;
  find("no-models").hidden = models.length > 0;
}

// One table body for each model: its row, and below it the error of its buttons.
function row(id) {
  const actions = new Actions(id);
  const cell = (kind, ...content) => element("td", { role: "cell", class: kind }, ...content);
  const kind = element("span");
  const size = element("span", { class: "narrow" }); // shown in narrow windows instead of the columns
  const state = element("span");
  const [context, weights] = [cell("number"), cell("number")];
  const name = element("th", { role: "rowheader", scope: "row" }, element("span", { class: "name" }, id), element("span", { class: "details" }, kind, size));
  const main = element("tr", { role: "row" }, name, context, weights, cell("", state), cell("last", actions.node));
  const below = element("tr", { role: "row", class: "below" }, element("td", { role: "cell", colspan: "5" }, actions.errorNode));
  return {
    node: element("tbody", { role: "rowgroup" }, main, below),
    update(model) {
      const also = model.aliases?.length ? `also ${model.aliases.join(", ")}` : "";
      setText(kind, [model.type, model.engine, model.quant, also].filter(Boolean).join(" · "));
      setText(context, model.context ? tokens(model.context) : "");
      const bytes = model.vram_bytes === undefined ? "" : gib(model.vram_bytes);
      setText(weights, bytes);
      setText(size, bytes && ` · ${bytes}`);
      setText(state, model.status);
      setAttribute(state, "class", `state ${model.status}`);
      actions.update(model.status);
    },
  };
}
