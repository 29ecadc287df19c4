// Every registered model, with its buttons.

import { Actions } from "./actions.js";
import { each, element, find, say, set } from "./dom.js";
import { gib, tokens } from "./format.js";

export function drawModels({ models }) {
  if (!models) return;
  each(find("models"), models, ({ id }) => id, row);
  find("models").hidden = models.length === 0;
  find("no-models").hidden = models.length > 0;
}

// A body of its own for each model: its row, and what came of its buttons below it.
function row(id) {
  const actions = new Actions(id);
  const cell = (kind, ...content) => element("td", { role: "cell", class: kind }, ...content);
  const kind = element("span");
  const size = element("span", { class: "narrow" }); // which has no columns
  const state = element("span");
  const [context, weights] = [cell("number"), cell("number")];
  const name = element("th", { role: "rowheader", scope: "row" }, element("span", { class: "name" }, id), element("span", { class: "details" }, kind, size));
  const main = element("tr", { role: "row" }, name, context, weights, cell("", state), cell("last", actions.node));
  const below = element("tr", { role: "row", class: "below" }, element("td", { role: "cell", colspan: "5" }, actions.failure));
  return {
    node: element("tbody", { role: "rowgroup" }, main, below),
    update(model) {
      const also = model.aliases?.length ? `also ${model.aliases.join(", ")}` : "";
      say(kind, [model.type, model.engine, model.quant, also].filter(Boolean).join(" · "));
      say(context, model.context ? tokens(model.context) : "");
      const bytes = model.vram_bytes === undefined ? "" : gib(model.vram_bytes);
      say(weights, bytes);
      say(size, bytes && ` · ${bytes}`);
      say(state, model.status);
      set(state, "class", `state ${model.status}`);
      actions.update(model.status);
    },
  };
}
