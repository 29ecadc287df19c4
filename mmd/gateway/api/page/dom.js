// Create elements and keep them in step with records. External data is inserted as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const shown = new WeakMap(); // parent -> Map of key -> view

export const find = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svgElement(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writes only changed text: replacing it makes a screen reader announce a live region, and drops the selection.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// Moving an element drops its focus.
function insertKeepingFocus(parent, node, next) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(node, next);
  focused?.focus();
}

// Gives `parent` one view `{node, update(record)}` for each record, in order. Views are kept by key, so that a new set of
// records drops neither the focus nor an error message.
export function syncViews(parent, records, keyOf, make) {
  const before = shown.get(parent) ?? new Map();
  const now = new Map();
  for (const record of records) {
    const key = keyOf(record);
    const view = before.get(key) ?? make(key);
    view.update(record);
    now.set(key, view);
  }
  for (const [key, view] of before) if (!now.has(key)) view.node.remove();
  let next = null; // from the end: children in front that are not views, such as a table's head, stay there
  for (const { node } of [...now.values()].reverse()) {
    if (node.parentNode !== parent || node.nextElementSibling !== next) insertKeepingFocus(parent, node, next);
    next = node;
  }
  shown.set(parent, now);
}
