// The list of logged trees.

import { get } from "../lib/api.js";
import { installed } from "../lib/document.js";
import { el, icon, replace, svg } from "../lib/dom.js";
import { NONE, exactly, oneLine, unit, when, whole } from "../lib/format.js";
import { failure, frame, say, typing } from "../lib/shell.js";

const STATUSES = ["complete", "cancelled", "deadline", "drained", "engine_dead", "failed", "interrupted"];
const OUTCOMES = [["right", "right"], ["wrong", "wrong"], ["none", "not judged"]];
const PAGE = 40;

const main = frame([["/", "search the list"], ["Tab", "from tree to tree"], ["Enter", "open a tree"]]);
const { algorithms, tasks } = await get("/openapi.json").then(installed, (error) => {
  replace(main, failure(error));
  throw error;
});
const FILTERS = [
  { name: "text", label: "Prompt or answer contains", type: "search" },
  { name: "status", label: "Status", options: STATUSES },
  { name: "algorithm", label: "Algorithm", options: Object.keys(algorithms) },
  { name: "task", label: "Task", options: tasks },
  { name: "outcome", label: "Outcome", options: OUTCOMES },
  { name: "release", label: "Release", type: "text", placeholder: "v000001" },
  { name: "min_nodes", label: "Nodes, at least", type: "number", min: 1, max: 10_000_000 },
];
const asked = new URLSearchParams(location.search);
const fields = Object.fromEntries(FILTERS.map((filter) => [filter.name, control(filter)]));
const table = el("div", { class: "card scroll" });
const pager = el("nav", { class: "pager", "aria-label": "Pages of the list" });
let newer = [];
let latest = 0;

function control({ name, label, options, ...rest }) {
  const value = asked.get(name) ?? "";
  if (!options) return el("input", { name, value, "aria-label": label, ...rest });
  const known = options.map((option) => (Array.isArray(option) ? option : [option, option.replaceAll("_", " ")]));
  const select = el("select", { name, "aria-label": label }, el("option", { value: "" }, "any"), known.map(([id, text]) => el("option", { value: id }, text)));
  select.value = value;
  return select;
}

function query(before) {
  const wanted = new URLSearchParams();
  for (const [name, field] of Object.entries(fields)) if (field.value.trim()) wanted.set(name, field.value.trim());
  const address = wanted.toString();
  history.replaceState(null, "", address ? `?${address}` : location.pathname);
  wanted.set("limit", PAGE);
  if (before) wanted.set("before", before);
  return wanted;
}

async function show(before = null) {
  const mine = ++latest;
  table.setAttribute("aria-busy", "true");
  try {
    const page = await get(`/v1/trees?${query(before)}`);
    if (mine === latest) draw(page, before);
  } catch (error) {
    if (mine === latest) replace(table, failure(error));
    if (mine === latest) replace(pager);
  } finally {
    table.removeAttribute("aria-busy");
  }
}

function draw(page, before) {
  say(`${page.data.length} trees`);
  if (!page.data.length) {
    const filtered = Object.values(fields).some((field) => field.value.trim());
    replace(table, el("div", { class: "empty" },
      el("strong", {}, filtered ? "No tree matches" : "No tree has been logged yet"),
      filtered
        ? el("button", { type: "button", onclick: clear }, "Clear the filters")
        : el("a", { class: "button primary", href: "/search" }, "Start a search")));
    replace(pager);
    return;
  }
  replace(table, el("table", { class: "list" },
    el("thead", {}, el("tr", {},
      ["Prompt and answer", "Outcome", "Value", "Algorithm", "Nodes", "Tokens", "Ended as", "Release", "When"].map((name) =>
        el("th", { scope: "col", class: name === "Nodes" || name === "Tokens" ? "number" : false }, name)))),
    el("tbody", {}, page.data.map(row))));
  const first = page.data[0].seq;
  replace(pager,
    el("button", { type: "button", disabled: before === null, onclick: () => show(newer.pop() ?? null) }, "Newer"),
    el("span", {}, `${page.data.length} trees, number ${whole(page.data.at(-1).seq)} to ${whole(first)} in the log`),
    el("button", { type: "button", disabled: !page.has_more, onclick: () => { newer.push(before); show(page.next_before); } }, "Older"));
}

function row(tree) {
  return el("tr", {},
    el("td", { class: "asked" },
      el("a", { href: `/trees/${tree.id}` }, oneLine(tree.prompt, 90) || "(empty prompt)"),
      el("div", { class: "given" }, tree.answer === null ? "no answer" : oneLine(tree.answer, 90) || "(empty answer)")),
    el("td", {}, outcome(tree.outcome)),
    el("td", {}, tree.value === null ? NONE : el("span", { class: "bar-cell" }, unit(tree.value), meter(tree.value))),
    el("td", {}, tree.algorithm),
    el("td", { class: "number" }, whole(tree.nodes)),
    el("td", { class: "number" }, whole(tree.tokens)),
    el("td", {}, status(tree.status)),
    el("td", {}, el("code", {}, tree.release || NONE)),
    el("td", { title: exactly(tree.created) }, when(tree.created)));
}

function outcome(value) {
  if (value === null) return el("span", { class: "muted", title: "No verifier and no person judged it" }, NONE);
  const right = value >= 1;
  return el("span", { class: `tag ${right ? "good" : "bad"}` }, mark(right), right ? "right" : value > 0 ? unit(value, 2) : "wrong");
}

function mark(right) {
  return svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("path", { d: right ? "M2 8.500l4 4 8-9" : "M3 3l10 10M13 3L3 13" }));
}

function meter(value) {
  return el("span", { class: "meter" }, svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { width: 100 * value, height: 6 })));
}

function status(name) {
  if (name === "complete") return el("span", { class: "muted" }, name);
  return el("span", { class: ["failed", "engine_dead"].includes(name) ? "bad" : "warn" }, name.replaceAll("_", " "));
}

function clear() {
  for (const field of Object.values(fields)) field.value = "";
  restart();
}

function restart() {
  newer = [];
  show();
}

let waiting;
const form = el("form", { class: "filters", role: "search", "aria-label": "Filter the trees", onsubmit: (event) => { event.preventDefault(); restart(); } },
  FILTERS.map(({ name, label }) => el("label", { class: "field" }, el("span", {}, label), fields[name])),
  el("button", { type: "button", onclick: clear }, "Clear"));
form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(restart, 250);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || typing(event)) return;
  event.preventDefault();
  fields.text.focus();
});
replace(main, el("div", { class: "page" },
  el("header", {}, el("h1", {}, "Trees"), el("a", { class: "button primary", href: "/search" }, icon("plus"), "New search")),
  form, table, pager));
show();
