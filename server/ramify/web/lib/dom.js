// Elements without HTML: text only ever becomes text nodes, whatever a user or a model wrote.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `on…` properties are listeners, `class`, `data-…` and `aria-…` are attributes, false omits one. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

const ICONS = {
  search: "M7 12.500a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM11 11l4 4",
  sun: "M8 11.500a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM8 .8v1.400M8 13.800v1.400M.8 8h1.400M13.8 8h1.400M2.9 2.900l1 1M12.1 12.100l1 1M2.9 13.100l1-1M12.1 3.900l1-1",
  moon: "M13.5 9.800A6 6 0 0 1 6.2 2.500a6 6 0 1 0 7.3 7.300z",
  key: "M10.5 9a3.5 3.5 0 1 0-3.3-2.300L1.5 12.400V14.500H4.500V12.500H6.500L8.8 8.800A3.5 3.5 0 0 0 10.5 9z",
  help: "M5.8 6a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.600M8 12.200v.1",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  fit: "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4",
  branch: "M4 2v12M4 9c6 0 7-1 7-5M11 4.500a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3z",
  collapse: "M4 6l4-4 4 4M4 10l4 4 4-4",
  expand: "M4 5l4 4 4-4M4 9l4 4 4-4",
  save: "M8 2v8M4.5 7L8 10.5 11.5 7M2.5 13.500h11",
  close: "M4 4l8 8M12 4l-8 8",
  play: "M5 3l8 5-8 5z",
  pause: "M5 3v10M11 3v10",
  stop: "M4 4h8v8H4z",
  up: "M4 10l4-4 4 4",
  down: "M4 6l4 4 4-4",
};

export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  );
}

/** A button that shows an icon and has a label for screen readers. */
export function iconButton(name, label, onclick, more = {}) {
  return el("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...more }, icon(name));
}

/** Offer a file made by the page as a download. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
