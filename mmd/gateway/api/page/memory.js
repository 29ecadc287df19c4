// Charts of VRAM and RAM over the last hour.

import { element, find, setAttribute, setText, svgElement } from "./dom.js";
import { clock, gib, ofTotal } from "./format.js";

const WIDTH = 1000;
const HEIGHT = 100;
const HOUR_MS = 3_600_000;
const KINDS = { vram: "VRAM", ram: "RAM" };

const charts = new Map();

export function drawMemory({ resources, history }) {
  if (!resources) return;
  setText(find("gpus"), (resources.gpus ?? []).map(({ name }) => name).join(", ") || "No GPU");
  for (const kind of Object.keys(KINDS)) {
    if (!charts.has(kind)) {
      charts.set(kind, new Chart(kind));
      find("memory").append(charts.get(kind).node);
    }
    charts.get(kind).update(resources[kind], history);
  }
}

class Chart {
  #kind;
  #points = []; // {at, used, total}, oldest first
  #index = null; // of the point under the crosshair

  constructor(kind) {
    const name = KINDS[kind];
    this.#kind = kind;
    this.area = svgElement("path", { class: "area" });
    this.line = svgElement("path", { class: "line" });
    this.cross = svgElement("line", { class: "cross", y1: 0, y2: HEIGHT, visibility: "hidden" });
    const size = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    this.plot = element("div", { class: "plot", role: "slider", tabindex: "0", "aria-label": `${name} over the last hour` });
    this.plot.append(svgElement("svg", size, this.area, this.line, this.cross));
    this.value = element("span", { class: "value" });
    this.readout = element("span", { class: "readout" });
    this.range = element("span");
    const head = element("figcaption", {}, element("h3", {}, name), this.value, this.readout);
    const axis = element("p", { class: "axis" }, element("span", {}, "1 h ago"), this.range, element("span", {}, "now"));
    this.node = element("figure", {}, head, this.plot, axis);
    this.#listen();
  }

  update(memory, history) {
    this.node.hidden = !memory?.total_bytes;
    if (this.node.hidden) return;
    setText(this.value, ofTotal(memory.used_bytes, memory.total_bytes));
    const [used, total] = [`${this.#kind}_used_bytes`, `${this.#kind}_total_bytes`];
    this.#points = (history?.samples ?? []).map((sample) => ({
      at: Date.parse(sample.at),
      used: sample[used],
      total: sample[total],
    }));
    this.#plot((history?.interval_seconds ?? 0) * 1000);
  }

  #x(point) {
    const newest = this.#points.at(-1).at;
    return WIDTH * (1 - (newest - point.at) / HOUR_MS);
  }

  #plot(intervalMs) {
    const points = this.#points;
    if (points.length === 0) return;
    const runs = [];
    points.forEach((point, index) => {
      const gapMs = index ? point.at - points[index - 1].at : Infinity;
      if (gapMs > 3 * intervalMs) runs.push([]); // no samples in between
      const y = HEIGHT * (1 - point.used / point.total);
      runs.at(-1).push([this.#x(point).toFixed(1), y.toFixed(1)]);
    });
    const path = (run) => `M${run.map((corner) => corner.join(" ")).join("L")}`;
    setAttribute(this.line, "d", runs.map(path).join(""));
    setAttribute(this.area, "d", runs.map((run) => `${path(run)}V${HEIGHT}H${run[0][0]}Z`).join(""));
    const used = points.map((point) => point.used);
    const [least, most] = [Math.min(...used), Math.max(...used)].map(gib);
    setText(this.range, `lowest ${least}, highest ${most}`);
    this.#point(this.#index === null ? null : Math.min(this.#index, points.length - 1));
  }

  #listen() {
    const last = () => this.#points.length - 1;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
    this.plot.addEventListener("keydown", (press) => {
      if (!(press.key in steps) || last() < 0) return;
      press.preventDefault();
      this.#point(Math.max(0, Math.min(last(), (this.#index ?? last()) + steps[press.key])));
    });
    this.plot.addEventListener("focus", () => this.#point(this.#index ?? last()));
    this.plot.addEventListener("blur", () => this.#point(null));
    this.plot.addEventListener("pointermove", (move) => this.#point(this.#nearest(move.clientX)));
    this.plot.addEventListener("pointerleave", () => this.#point(document.activeElement === this.plot ? last() : null));
  }

  #nearest(clientX) {
    const { left, width } = this.plot.getBoundingClientRect();
    const wanted = ((clientX - left) / width) * WIDTH;
    const away = this.#points.map((point) => Math.abs(this.#x(point) - wanted));
    return away.indexOf(Math.min(...away));
  }

  // Shows the crosshair; null hides it. Assistive technology gets a value in both cases.
  #point(index) {
    this.#index = index !== null && index >= 0 ? index : null;
    const shown = this.#points[this.#index ?? this.#points.length - 1];
    if (!shown) return;
    const text = `${clock(new Date(shown.at))}: ${gib(shown.used)}`;
    setAttribute(this.plot, "aria-valuemin", 0);
    setAttribute(this.plot, "aria-valuemax", this.#points.length - 1);
    setAttribute(this.plot, "aria-valuenow", this.#index ?? this.#points.length - 1);
    setAttribute(this.plot, "aria-valuetext", `${text} of ${gib(shown.total)}`);
    setAttribute(this.cross, "visibility", this.#index === null ? "hidden" : "visible");
    setAttribute(this.cross, "x1", this.#x(shown).toFixed(1));
    setAttribute(this.cross, "x2", this.#x(shown).toFixed(1));
    setText(this.readout, this.#index === null ? "" : text);
  }
}
