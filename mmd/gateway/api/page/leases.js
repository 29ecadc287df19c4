// Leases, in the panel "Now": memory that other programs than models have, each with a button to end it.

import { endLease } from "./api.js";
import { held } from "./devices.js";
import { element, find, setAttribute, setText, syncViews } from "./dom.js";
import { ErrorBox } from "./error_box.js";

export function drawLeases({ status }) {
  const leases = (status?.leases ?? []).map((lease) => ({ ...lease, held: held(lease.devices, status) }));
  syncViews(find("leases"), leases, ({ name }) => name, leaseCard);
}

function leaseCard(name) {
  const state = element("span");
  const end = element("button", { type: "button", "aria-label": `End the lease ${name}`, title: "Models that were unloaded for it are restored" }, "End");
  const line = element("p", { class: "facts" });
  const errorBox = new ErrorBox();
  end.addEventListener("click", () => press(name, end, errorBox));
  const head = element("div", { class: "card-head" }, element("h3", {}, `lease ${name}`), state, element("div", { class: "actions" }, end));
  return {
    node: element("li", { class: "card" }, head, line, errorBox.node),
    update({ state: kind, program, held: memory }) {
      setText(state, kind);
      setAttribute(state, "class", `state ${kind}`);
      setText(line, [memory, program].filter(Boolean).join(" · "));
      end.hidden = kind === "ending";
    },
  };
}

async function press(name, button, errorBox) {
  if (button.getAttribute("aria-disabled") === "true") return;
  setAttribute(button, "aria-disabled", true);
  errorBox.show(null);
  try {
    await endLease(name); // the next status event is without it
  } catch (error) {
    errorBox.show(error);
    setAttribute(button, "aria-disabled", false);
  }
}
