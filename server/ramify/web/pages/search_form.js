// The form of a search. Only what was filled in is sent: every other default is the server's.

import { el, icon } from "../lib/dom.js";

const ALGORITHMS = ["mcts", "gumbel", "rap", "beam", "dvts", "dfs", "particle", "best_of_n", "self_consistency"];
const TREES = ["mcts", "gumbel"];

/** {element, cancel, running, start(), stop(), focus()}; `submit(body)` gets the request's body. */
export function askForm(parent, submit) {
  const prompt = el("textarea", { rows: 4, required: true, placeholder: "3 5 7 8 to 24", spellcheck: "false", value: parent ? parent.prompt : "", readonly: Boolean(parent) });
  const inputs = {
    algorithm: choice(ALGORITHMS),
    expand: choice(["path", "step"]),
    select: choice(["thompson", "puct"]),
    grader: choice([["model", "value model"], ["verifier", "the task's verifier"]]),
    simulations: number({ min: 1, value: 64 }),
    tokens: number({ min: 1, placeholder: "no limit" }),
    seconds: number({ min: 0.1, step: "any", placeholder: "no limit" }),
    temperature: number({ min: 0, max: 2, step: "any", placeholder: "1" }),
    max_tokens: number({ min: 1, placeholder: "model's own" }),
    seed: number({ min: 0, placeholder: "random" }),
    train: el("input", { type: "checkbox" }),
  };
  const task = choice([["", "the model's own"], ["none", "none"], ["exact", "exact"], ["math", "math"]]);
  const right = el("input", { placeholder: "the right answer" });
  const rightField = field("Right answer", right);
  inputs.train.checked = true;
  if (parent) inputs.algorithm.value = parent.params.algorithm;
  const adapt = () => {
    inputs.expand.disabled = !TREES.includes(inputs.algorithm.value);
    inputs.select.disabled = inputs.algorithm.value !== "mcts";
    rightField.hidden = !["exact", "math"].includes(task.value);
  };
  inputs.algorithm.addEventListener("change", adapt);
  task.addEventListener("change", adapt);
  adapt();

  const go = el("button", { type: "submit", class: "primary grow" }, icon("play"), "Start the search");
  const cancel = el("button", { type: "button", disabled: true }, icon("stop"), "Cancel");
  const element = el("form", { class: "ask", "aria-label": "A search", onsubmit: (event) => { event.preventDefault(); submit(bodyOf()); } },
    el("h1", {}, parent ? "Branch" : "New search"),
    field(parent ? "Prompt and answer so far" : "Prompt", prompt),
    !parent && field("Task", task), !parent && rightField,
    el("div", { class: "row" }, go, cancel),
    group("How to search",
      field("Algorithm", inputs.algorithm), field("Judge of answers", inputs.grader),
      field("Expansion", inputs.expand), field("Selection", inputs.select)),
    group("Budget", field("Simulations", inputs.simulations), field("Tokens", inputs.tokens), field("Seconds", inputs.seconds)),
    group("Sampling", field("Temperature", inputs.temperature), field("Tokens of an answer", inputs.max_tokens), field("Seed", inputs.seed)),
    el("label", { class: "row" }, inputs.train, "The trainer may learn from it"));
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      element.requestSubmit();
    }
  });

  function bodyOf() {
    const algorithm = inputs.algorithm.value;
    const search = { algorithm, grader: inputs.grader.value, budget: numbers(["simulations", "tokens", "seconds"]) };
    if (TREES.includes(algorithm)) search.expand = inputs.expand.value;
    if (algorithm === "mcts") search.select = inputs.select.value;
    const sampling = numbers(["temperature", "max_tokens"]);
    const body = { search, sampling, train: inputs.train.checked, ...numbers(["seed"]) };
    if (parent) return { ...body, node: parent.node };
    if (task.value) body.task = { name: task.value, ...(rightField.hidden ? {} : { problem: { answer: right.value } }) };
    return { ...body, prompt: prompt.value };
  }

  function numbers(names) {
    return Object.fromEntries(names.filter((name) => inputs[name].value !== "").map((name) => [name, Number(inputs[name].value)]));
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

function field(label, control) {
  return el("label", { class: "field" }, el("span", {}, label), control);
}

function group(title, ...fields) {
  return el("fieldset", {}, el("legend", {}, title), el("div", { class: "form-grid" }, fields));
}

function number(attributes) {
  return el("input", { type: "number", inputmode: "decimal", ...attributes });
}

function choice(options) {
  return el("select", {}, options.map((option) => {
    const [value, text] = Array.isArray(option) ? option : [option, option.replaceAll("_", " ")];
    return el("option", { value }, text);
  }));
}
