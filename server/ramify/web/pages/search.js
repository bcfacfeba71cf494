// Start a search, from a prompt or from a node of a logged tree, and watch it grow.

import { get, post, stream } from "../lib/api.js";
import { el, icon, replace, svg } from "../lib/dom.js";
import { NONE, oneLine, seconds, shortId, unit, whole } from "../lib/format.js";
import { failure, frame, say } from "../lib/shell.js";
import { drawLegend } from "../tree/legend.js";
import { Model, grow } from "../tree/model.js";
import { TreeView } from "../tree/view.js";
import { askForm } from "./search_form.js";

const main = frame([["← → ↑ ↓", "walk through the tree"], ["+ - 0", "zoom in, out, fit"], ["Enter", "in the form: start"]]);
const address = new URLSearchParams(location.search);

let parent = null;
try {
  const api = await get("/openapi.json");
  if (address.has("tree")) parent = await branchFrom(address.get("tree"), Number(address.get("node") ?? 0));
  open(api);
} catch (error) {
  replace(main, failure(error));
}

async function branchFrom(id, node) {
  const reply = await get(`/v1/trees/${encodeURIComponent(id)}`);
  const model = Model.of(reply.tree);
  const known = Number.isInteger(node) && node >= 0 && node < model.nodes.length ? node : 0;
  return { id: reply.id, node: known, prompt: reply.tree.prompt + model.text(known), params: reply.tree.params };
}

function open(api) {
  const container = el("div", { class: "view" });
  const legend = el("div", { class: "legend", "aria-label": "Legend" });
  const header = el("header", { "aria-live": "off" });
  const stage = el("div", { class: "stage" }, el("span"), container, legend);
  const form = askForm(api, parent, (body) => run(body, { form, header, view: new TreeView(container, { say }), legend }));
  form.cancel.addEventListener("click", () => cancel(form, header));
  replace(main, el("div", { class: "search-page" }, form.element, el("div", { class: "live" }, header, stage)));
  replace(header, el("p", { class: "muted" }, parent
    ? ["Searches on from node ", String(parent.node), " of ", el("a", { href: `/trees/${parent.id}#node=${parent.node}` }, `tree ${shortId(parent.id)}`), "."]
    : "The tree appears here while it grows."));
  form.focus();
}

async function cancel(form, header) {
  if (!form.running) return;
  form.cancel.disabled = true;
  try {
    await post(`/v1/search/${form.running}/cancel`);
  } catch (error) {
    header.append(el("p", { class: "said", role: "alert" }, error.message));
  }
}

async function run(body, { form, header, view, legend }) {
  const path = parent ? `/v1/trees/${parent.id}/branch` : "/v1/search";
  const nodes = [];
  const prompt = parent?.prompt ?? body.prompt;
  const budget = body.search.budget;
  let ended = null;
  form.start();
  replace(header, el("p", { class: "muted" }, "Waiting to be admitted …"));
  try {
    for await (const [name, data] of stream(path, { ...body, stream: true, stream_options: { nodes: true } })) {
      if (name === "search.started") form.running = data.id;
      if (name === "search.progress") progress(data, { nodes, prompt, view, legend, header, budget });
      if (name === "search.completed") ended = data;
      if (name === "error") throw new Error(data.error.message);
    }
    if (!ended) throw new Error("the stream broke off; the search may be in the log");
    await finished(ended, { view, legend, header, budget });
  } catch (error) {
    replace(header, el("p", { class: "said", role: "alert" }, error.message));
  } finally {
    form.stop();
  }
}

function progress(data, { nodes, prompt, view, legend, header, budget }) {
  grow(nodes, data.new_nodes ?? []);
  if (nodes.length) {
    const best = data.answer && nodes[data.answer.node] ? data.answer.node : null;
    const model = new Model(prompt, nodes, { chosen: best, final: false });
    view.show(model, { keep: true });
    drawLegend(legend, model, view.scene.palette, view.scene.colour);
  }
  figures(header, {
    state: "running",
    answer: data.answer,
    facts: [
      ["Simulations", data.simulations, budget?.simulations],
      ["Tokens generated", data.tokens, budget?.tokens],
      ["Nodes", data.nodes, budget?.nodes],
      ["Time", data.seconds, budget?.seconds, seconds],
    ],
  });
}

async function finished(reply, { view, legend, header, budget }) {
  const logged = await get(`/v1/trees/${reply.tree.id}`);
  const model = Model.of(logged.tree);
  view.show(model, { keep: true });
  drawLegend(legend, model, view.scene.palette, view.scene.colour);
  const { usage } = reply;
  figures(header, {
    state: `${reply.status.replaceAll("_", " ")} · ${reply.stop_reason ?? NONE}`,
    answer: reply.answer,
    outcome: reply.verdict?.outcome ?? reply.answer?.outcome,
    link: `/trees/${reply.tree.id}`,
    facts: [
      ["Simulations", usage.simulations, budget?.simulations],
      ["Tokens generated", usage.completion_tokens, budget?.tokens],
      ["Nodes", usage.nodes, budget?.nodes],
      ["Time", usage.seconds, budget?.seconds, seconds],
    ],
  });
  say(`search ${reply.status}: ${reply.answer ? oneLine(reply.answer.text) : "no answer"}`);
}

function figures(header, { state, answer, outcome, facts, link }) {
  replace(header,
    el("div", { class: "row" },
      el("p", { class: "best grow", title: answer?.text ?? "" }, answer ? `→ ${oneLine(answer.text, 160) || "(empty answer)"}` : el("span", { class: "muted" }, "no complete answer yet")),
      link && el("a", { class: "button primary", href: link, "data-open": true }, "Open the tree", icon("expand"))),
    el("dl", { class: "figures" },
      fact("State", state),
      facts.map(([name, used, limit, shown = whole]) => fact(name, `${shown(used)}${limit ? ` of ${shown(limit)}` : ""}`, limit ? meter(used / limit) : false)),
      fact("Best value", unit(answer?.value)),
      typeof outcome === "number" && fact("Outcome", outcome >= 1 ? el("span", { class: "good" }, "✓ right") : el("span", { class: "bad" }, "✕ wrong"))));
}

const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value));

function meter(share) {
  return el("span", { class: "meter" }, svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { width: 100 * Math.min(1, share), height: 4 })));
}
