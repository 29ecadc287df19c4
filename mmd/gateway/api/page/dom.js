// Elements, made and kept in step with records. What comes from outside goes in as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const shown = new WeakMap(); // parent -> Map of key -> view

export const find = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writes only what is new: a live region is read out, and a selection lost, whenever text is replaced.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// What is moved loses the focus otherwise.
function moveBefore(parent, node, next) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(node, next);
  focused?.focus();
}

// Gives `parent` one view `{node, update(record)}` for each record, in order. Views are kept by key, so that neither
// the focus nor a message in one is lost when the records come anew.
export function each(parent, records, keyOf, make) {
  const before = shown.get(parent) ?? new Map();
  const now = new Map();
  for (const record of records) {
    const key = keyOf(record);
    const view = before.get(key) ?? make(key);
    view.update(record);
    now.set(key, view);
  }
  for (const [key, view] of before) if (!now.has(key)) view.node.remove();
  let next = null; // from the end: what stands in front, as a table's head, is no view and stays there
  for (const { node } of [...now.values()].reverse()) {
    if (node.parentNode !== parent || node.nextElementSibling !== next) moveBefore(parent, node, next);
    next = node;
  }
  shown.set(parent, now);
}
