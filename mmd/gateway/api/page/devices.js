// The panel "Devices": each GPU and the RAM, with the models, leases and other programs on it.

import { element, find, setAttribute, setText, svgElement, syncViews } from "./dom.js";
import { gib } from "./format.js";

const WIDTH = 1000;
const RAM = "ram";

export function drawDevices({ status }) {
  const devices = status?.devices ?? []; // older gateways have none
  find("devices").hidden = devices.length === 0;
  const records = devices.map((device) => ({ device, holders: holders(device, status) }));
  syncViews(find("device-list"), records, ({ device }) => device.id, deviceEntry);
}

// A device's name for people: "GPU 0".
const shortName = ({ id, index }) => (id === RAM ? "RAM" : `GPU ${index}`);

// What a model or a lease holds: "8.0 GiB of GPU 0".
export function held(devices, status) {
  const names = new Map((status.devices ?? []).map((device) => [device.id, shortName(device)]));
  const parts = Object.entries(devices ?? {}).filter(([, bytes]) => bytes > 0);
  return parts.map(([id, bytes]) => `${gib(bytes)} of ${names.get(id) ?? id}`).join(" and ");
}

function holders({ id, index, mmd_bytes: ours, others_bytes: others }, status) {
  const on = (one) => one.devices?.[id] ?? 0;
  const inRam = (one) => (id === RAM && index === null ? one.ram_bytes : 0);
  const found = [
    ...(status.resident ?? []).map((one) => ({ name: one.id, kind: "awake", bytes: on(one), note: usedNote(one, id) })),
    ...(status.starting ?? []).map((one) => ({ name: one.id, kind: "awake", bytes: on(one), note: "starting" })),
    ...(status.stranded ?? []).map((one) => ({ name: one.id, kind: "stranded", bytes: on(one), note: "stranded" })),
    ...(status.sleeping ?? []).map((one) => ({ name: one.id, kind: "asleep", bytes: on(one) + inRam(one), note: "asleep" })),
    ...(status.leases ?? []).map((one) => ({ name: `lease ${one.name}`, kind: "lease", bytes: on(one), note: one.program })),
  ].filter(({ bytes }) => bytes > 0);
  if (found.length === 0 && ours > 0) found.push({ name: "models", kind: "awake", bytes: ours, note: "" });
  if (others > 0) found.push({ name: "other programs", kind: "others", bytes: others, note: "" });
  return found;
}

const usedNote = ({ used }, id) => (used?.[id] === undefined ? "" : `${gib(used[id])} used`);

function deviceEntry() {
  const name = element("h3");
  const free = element("span", { class: "value" });
  const bar = svgElement("svg", { class: "bar", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const list = element("ul", { class: "holders" });
  return {
    node: element("li", {}, element("div", { class: "device-head" }, name, free), bar, list),
    update({ device, holders: all }) {
      setText(name, device.id === RAM ? device.name : `${shortName(device)}: ${device.name}`);
      setText(free, `${gib(device.free_bytes)} of ${gib(device.total_bytes)} free`);
      syncViews(bar, withPositions(all, device.total_bytes), ({ name: key }) => key, segment);
      syncViews(list, all, ({ name: key }) => key, holderEntry);
    },
  };
}

// What models hold may exceed what they use now: the bar ends at its end.
function withPositions(all, total) {
  let x = 0;
  return all.map((one) => {
    const width = Math.max(0, Math.min(WIDTH - x, (WIDTH * one.bytes) / total));
    x += width;
    return { ...one, x: x - width, width };
  });
}

function segment() {
  const title = svgElement("title");
  const node = svgElement("rect", { height: 10 }, title);
  return {
    node,
    update({ name, kind, bytes, x, width }) {
      setAttribute(node, "class", kind);
      setAttribute(node, "x", x.toFixed(1));
      setAttribute(node, "width", width.toFixed(1));
      setText(title, `${name}: ${gib(bytes)}`);
    },
  };
}

function holderEntry(name) {
  const swatch = svgElement("rect", { width: 10, height: 10 });
  const size = element("span", { class: "took" });
  const note = element("span", { class: "why" });
  const colour = svgElement("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, swatch);
  return {
    node: element("li", {}, colour, element("span", { class: "holder" }, name), note, size),
    update({ kind, bytes, note: text }) {
      setAttribute(swatch, "class", kind);
      setText(size, gib(bytes));
      setText(note, text);
    },
  };
}
