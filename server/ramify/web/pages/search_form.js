// The form of a search, made from the server's own OpenAPI document: its parameters, choices and bounds, which of them
// each algorithm has, and the tasks. Only fields that were filled in are sent: every other default is the server's.

import { el, icon } from "../lib/dom.js";
import { installed, shape } from "../lib/document.js";

const FIRST = ["grader", "expand", "select"];
const TEXT = "a text", CHAT = "a message";

/** {element, cancel, running, start(), stop(), focus()}; `submit(body)` gets the request's body. api: the document. */
export function askForm(api, parent, submit) {
  const asked = shape(api, api.components.schemas.SearchRequest).properties;
  const search = shape(api, asked.search);
  const { algorithms, tasks } = installed(api);
  const prompt = el("textarea", { rows: 4, required: true, placeholder: "3 5 7 8 to 24", spellcheck: "false", value: parent ? parent.prompt : "", readonly: Boolean(parent) });
  const written = choice([TEXT, CHAT]);
  const system = el("input", { placeholder: "none", spellcheck: "false" });
  const systemField = field("System message", system);
  const algorithm = choice(["", ...Object.keys(algorithms)]);
  if (parent) algorithm.value = parent.params.algorithm;
  const task = choice(["", ...tasks]);
  const right = el("input", { placeholder: "the right answer" });
  const rightField = field("Right answer", right);
  const train = el("input", { type: "checkbox" });
  train.checked = true;

  const budget = inputsOf(api, shape(api, search.properties.budget));
  const action = inputsOf(api, shape(api, search.properties.action));
  const sampling = inputsOf(api, shape(api, asked.sampling));
  const parameters = inputsOf(api, search, ["algorithm", "budget", "action"]);
  const seed = inputOf("seed", shape(api, asked.seed));
  const main = parameters.filter((one) => FIRST.includes(one.name));
  const others = parameters.filter((one) => !FIRST.includes(one.name));
  const actions = group("One action", action.map((one) => one.element));

  const adapt = () => {
    const known = algorithms[algorithm.value || "mcts"];
    for (const one of parameters) one.enable(known.includes(one.name));
    for (const one of action) one.enable(known.includes("action"));
    actions.hidden = !known.includes("action");
    rightField.hidden = !["exact", "math"].includes(task.value);
    systemField.hidden = written.value !== CHAT;
  };
  written.addEventListener("change", adapt);
  algorithm.addEventListener("change", adapt);
  task.addEventListener("change", adapt);
  adapt();

  const go = el("button", { type: "submit", class: "primary grow" }, icon("play"), "Start the search");
  const cancel = el("button", { type: "button", disabled: true }, icon("stop"), "Cancel");
  const element = el("form", { class: "ask", "aria-label": "A search", onsubmit: (event) => { event.preventDefault(); submit(bodyOf()); } },
    el("h1", {}, parent ? "Branch" : "New search"),
    field(parent ? "Prompt and answer so far" : "Prompt", prompt),
    !parent && field("Sent as", written, "A text as it is, or a message that the model's chat template writes"), !parent && systemField,
    !parent && field("Task", task), !parent && rightField,
    el("div", { class: "row" }, go, cancel),
    group("How to search", field("Algorithm", algorithm), main.map((one) => one.element)),
    group("Budget", budget.map((one) => one.element)),
    group("Sampling", sampling.map((one) => one.element), seed.element),
    el("details", {}, el("summary", {}, "Every parameter"), el("div", { class: "form-grid" }, others.map((one) => one.element)), actions),
    el("label", { class: "row" }, train, "The trainer may learn from it"));
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      element.requestSubmit();
    }
  });

  function bodyOf() {
    const inner = { ...said(parameters), ...some("budget", said(budget)), ...some("action", said(action)) };
    if (algorithm.value) inner.algorithm = algorithm.value;
    const body = { search: inner, sampling: said(sampling), train: train.checked, ...said([seed]) };
    if (parent) return { ...body, node: parent.node };
    if (task.value) body.task = { name: task.value, ...(rightField.hidden ? {} : { problem: { answer: right.value } }) };
    return { ...body, ...promptOf(prompt.value, written.value === CHAT, system.value) };
  }

  const form = { element, cancel, running: null, focus: () => (parent ? go : prompt).focus() };
  form.start = () => {
    go.disabled = true;
    cancel.disabled = false;
  };
  form.stop = () => {
    form.running = null;
    go.disabled = false;
    cancel.disabled = true;
  };
  return form;
}

/** The field of a request that has the prompt: a text as it is, or a conversation for the model's chat template. */
export function promptOf(text, chat, system) {
  if (!chat) return { prompt: text };
  const before = system ? [{ role: "system", content: system }] : [];
  return { messages: [...before, { role: "user", content: text }] };
}

function inputsOf(api, schema, without = []) {
  return Object.entries(schema.properties).filter(([name]) => !without.includes(name)).map(([name, property]) => inputOf(name, shape(api, property)));
}

/** {name, element, enable(whether), value()} for one property; value() is undefined if nothing was filled in. */
function inputOf(name, schema) {
  const [control, read] = controlOf(schema);
  const element = field(spoken(name), control, schema.description);
  const enable = (whether) => {
    control.disabled = !whether;
    element.hidden = !whether;
  };
  return { name, element, enable, value: () => (control.disabled || control.value === "" ? undefined : read(control.value)) };
}

function controlOf(schema) {
  if (schema.enum) return [choice(["", ...schema.enum]), (text) => text];
  if (schema.type === "boolean") return [choice(["", "true", "false"]), (text) => text === "true"];
  if (schema.items?.pattern) return [el("input", { placeholder: "names, with commas", spellcheck: "false" }), (text) => text.split(/[\s,]+/).filter(Boolean)];
  if (schema.type === "array") return [el("input", { placeholder: "\\n is a line's end", spellcheck: "false" }), (text) => [text.replaceAll("\\n", "\n")]];
  if (schema.type === "string") return [el("input", { placeholder: "default", spellcheck: "false" }), (text) => text];
  const { minimum, maximum, exclusiveMinimum } = schema;
  const step = schema.type === "integer" ? 1 : "any";
  return [el("input", { type: "number", inputmode: "decimal", min: minimum ?? exclusiveMinimum, max: maximum, step, placeholder: "default" }), Number];
}

function said(inputs) {
  return Object.fromEntries(inputs.map((one) => [one.name, one.value()]).filter(([, value]) => value !== undefined));
}

const some = (name, values) => (Object.keys(values).length ? { [name]: values } : {});

const spoken = (name) => (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("_", " ");

function field(label, control, title = false) {
  return el("label", { class: "field", title }, el("span", {}, label), control);
}

function group(title, ...fields) {
  return el("fieldset", {}, el("legend", {}, title), el("div", { class: "form-grid" }, fields));
}

function choice(options) {
  return el("select", {}, options.map((value) => el("option", { value }, value === "" ? "default" : value.replaceAll("_", " "))));
}
