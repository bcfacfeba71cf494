// One logged tree.

import { get } from "../lib/api.js";
import { download, el, icon, iconButton, replace, svg } from "../lib/dom.js";
import { NONE, exactly, oneLine, seconds, shortId, unit, when, whole } from "../lib/format.js";
import { failure, frame, say, typing } from "../lib/shell.js";
import { unseenBelow } from "../tree/bandit.js";
import { drawLegend } from "../tree/legend.js";
import { Model } from "../tree/model.js";
import { showPanel } from "../tree/panel.js";
import { replayOf } from "../tree/replay.js";
import { vector } from "../tree/vector.js";
import { TreeView } from "../tree/view.js";

const main = frame([
  ["← →", "to the parent, to the first child"], ["↑ ↓", "along a depth"], ["Home End", "to the prompt, to the chosen answer"],
  ["+ - 0", "zoom in, out, fit"], ["Enter", "collapse or expand the selected node"], ["/", "search in the text"], ["n N", "next and last match"],
  ["[ ]", "one simulation back or on"],
]);
const id = decodeURIComponent(location.pathname.split("/")[2] ?? "");

try {
  open(await get(`/v1/trees/${encodeURIComponent(id)}`));
} catch (error) {
  replace(main, failure(error));
}

function open(reply) {
  const document_ = reply.tree;
  const model = Model.of(document_);
  const tree = { id: reply.id, model, unseen: unseenBelow(model), feedback: reply.feedback };
  const replay = replayOf(model);
  document.title = `${oneLine(model.prompt, 40)} · Ramify`;

  let header = head(reply, document_);
  const container = el("div", { class: "view" });
  const panel = el("aside", { class: "panel", "aria-label": "The selected node" });
  const legend = el("div", { class: "legend", "aria-label": "Legend" });
  const actions = {
    select: (node) => view.select(node),
    focus: (node) => view.focus(node),
    judged: (verdict) => {
      tree.feedback.push(verdict);
      if (verdict.node === document_.answer?.node) {
        const before = header;
        header = head({ ...reply, outcome: verdict.outcome }, document_);
        before.replaceWith(header);
      }
      say("verdict recorded");
      showPanel(panel, tree, view.scene.selected, actions);
    },
  };
  const view = new TreeView(container, {
    say,
    onSelect: (node) => {
      showPanel(panel, tree, node, actions);
      remember(view);
    },
  });
  const legendNow = () => drawLegend(legend, model, view.scene.palette, view.scene.colour);
  const finder = find(model, view);
  const slider = replayBar(model, replay, view);
  replace(main, el("div", { class: "tree-page" },
    header,
    el("div", { class: "split" },
      el("div", { class: "stage" },
        el("div", {}, tools(view, finder, document_, reply.id, model.policies, legendNow)),
        container,
        el("div", {}, legend, slider.element)),
      panel)));
  view.show(model, { replay });
  legendNow();
  addEventListener("themechange", legendNow);
  keys(finder, slider);
  const goTo = () => fromAddress(view, model, slider);
  addEventListener("hashchange", goTo);
  goTo();
}

/** #node=12&simulation=30: the selected node, and the place of the replay. */
function fromAddress(view, model, slider) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (wanted.has("simulation")) slider.go(Number(wanted.get("simulation")));
  const node = Number(wanted.get("node") ?? model.answer ?? 0);
  const known = Number.isInteger(node) && node >= 0 && node < model.nodes.length ? node : 0;
  if (known === view.scene.selected) return;
  if (wanted.has("node")) view.focus(known, Math.max(view.camera.k, 0.8));
  view.scene.selected = known;
  view.draw();
  view.onSelect(known);
}

function remember(view) {
  const address = new URLSearchParams();
  if (view.scene.selected !== null) address.set("node", view.scene.selected);
  if (Number.isFinite(view.scene.time)) address.set("simulation", view.scene.time);
  history.replaceState(null, "", `#${address}`);
}

function head(reply, { prompt, answer, params, usage, status, stop_reason, task, created_at, candidates, parent_tree, origin, continues, error, sampling, seed, train, defaults }) {
  const { budget } = params;
  const figure = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value));
  // The log holds the limits in force, the server's own among them: only the one that ended the search is shown.
  const spent = (name, used, key, shown = whole) => {
    const limit = stop_reason === `budget.${key}` ? budget[key] : null;
    return figure(name, `${shown(used)}${limit ? ` of ${shown(limit)}` : ""}`, limit ? meter(used / limit) : false);
  };
  const select = params.algorithm === "mcts" ? ` · ${params.expand} · ${params.select}` : "";
  return el("header", { class: "tree-head" },
    el("h1", { title: prompt }, oneLine(prompt, 160) || "(empty prompt)"),
    el("span", { class: "muted", title: `${reply.id}, ${exactly(created_at)}` }, `tree ${shortId(reply.id)} · ${when(created_at)}`),
    el("p", { class: "answer", title: answer?.text ?? "" }, answer ? `→ ${oneLine(answer.text, 200) || "(empty answer)"}` : "no answer"),
    el("span", {},
      parent_tree && el("a", { href: `/trees/${parent_tree}#node=${origin?.node ?? 0}` }, `branched from ${shortId(parent_tree)}, node ${origin?.node ?? 0}`),
      parent_tree && continues && " · ",
      continues && el("a", { href: `/trees/${continues.tree}` }, `goes on from ${shortId(continues.tree)} after ${whole(continues.usage.completion_tokens)} tokens`)),
    el("dl", { class: "figures" },
      figure("Algorithm", `${params.algorithm}${select}`),
      figure("Ended as", `${status.replaceAll("_", " ")} · ${stop_reason ?? NONE}`),
      spent("Simulations", usage.simulations, "simulations"),
      spent("Tokens generated", usage.completion_tokens, "tokens"),
      spent("Nodes", usage.nodes, "nodes"),
      spent("Time", usage.seconds, "seconds", seconds),
      figure("Scored", whole(usage.scored_sequences)),
      figure("Answer value", unit(answer?.value)),
      figure("Outcome", judged(reply.outcome)),
      figure("Votes", answer ? `${Math.round(100 * answer.votes)} % of ${candidates.length}` : NONE),
      figure("Task · T · seed", `${task ?? "none"} · ${unit(sampling.temperature, 1)} · ${seed}`),
      defaults && figure("Defaults", el("span", { title: named({ ...defaults.search, ...defaults.sampling }) }, `of ${defaults.source}`)),
      !train && figure("Training", "not allowed"),
      error && figure("Error", el("span", { class: "bad", title: error }, oneLine(error, 80)))),
    usage.by_policy && policyTable(usage.by_policy));
}

/** What each policy of the search cost and brought. */
function policyTable(parts) {
  const heads = ["Policy", "Tokens", "Draws", "Mean value", ""];
  return el("table", { class: "arms", "aria-label": "Policies" },
    el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { scope: "col", class: i && head ? "number" : false }, head)))),
    el("tbody", {}, Object.entries(parts).map(([name, { completion_tokens, draws, value, closed }]) => el("tr", {},
      el("td", {}, name),
      [whole(completion_tokens), whole(draws), unit(value)].map((figure) => el("td", { class: "number" }, figure)),
      el("td", { class: "bad", title: closed }, closed ? `asked no more: ${oneLine(closed, 60)}` : "")))));
}

function named(fields) {
  return Object.entries(fields).map(([name, value]) => `${name} ${value}`).join(", ");
}

function judged(outcome) {
  if (outcome === null) return "not judged";
  return outcome >= 1 ? el("span", { class: "good" }, "✓ right") : outcome > 0 ? unit(outcome, 2) : el("span", { class: "bad" }, "✕ wrong");
}

function meter(share) {
  return el("span", { class: "meter" }, svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { width: 100 * Math.min(1, share), height: 4 })));
}

function tools(view, finder, document_, treeId, policies, recoloured) {
  const colour = el("select", { "aria-label": "Colour shows", onchange: () => { view.setColour(colour.value); recoloured(); } },
    el("option", { value: "value" }, "model value v"), el("option", { value: "mean" }, "mean value Q"), el("option", { value: "prior" }, "prior P"),
    policies.length > 0 && el("option", { value: "policy" }, "policy"));
  return el("div", { class: "tools", role: "toolbar", "aria-label": "Tree" },
    iconButton("minus", "Zoom out (-)", () => view.zoomBy(1 / 1.3)),
    iconButton("fit", "Fit (0)", () => view.fit()),
    iconButton("plus", "Zoom in (+)", () => view.zoomBy(1.3)),
    el("span", { class: "rule" }),
    iconButton("collapse", "Collapse all but the chosen path", () => view.collapseAll(true)),
    iconButton("expand", "Expand all", () => view.collapseAll(false)),
    el("span", { class: "rule" }),
    el("label", {}, "Colour", colour),
    el("span", { class: "grow" }),
    finder.element,
    el("button", { type: "button", onclick: () => download(`${treeId}.json`, "application/json", JSON.stringify(document_, null, 1)) }, icon("save"), "JSON"),
    el("button", { type: "button", onclick: () => download(`${treeId}.svg`, "image/svg+xml", vector(view.scene)) }, icon("save"), "SVG"));
}

function find(model, view) {
  let hits = [];
  let at = -1;
  const field = el("input", { type: "search", placeholder: "Search in text", "aria-label": "Search in the tree's text", oninput: look });
  const count = el("output", { role: "status" });
  const step = (by) => {
    if (!hits.length) return;
    at = (at + by + hits.length) % hits.length;
    view.focus(hits[at]);
    view.select(hits[at]);
    count.textContent = `${at + 1} of ${hits.length}`;
  };
  function look() {
    const wanted = field.value.toLowerCase();
    hits = wanted ? model.nodes.filter((node) => (node.id === 0 ? model.prompt : node.text).toLowerCase().includes(wanted)).map((node) => node.id) : [];
    at = -1;
    count.textContent = wanted ? `${hits.length} found` : "";
    view.setHits(hits);
  }
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") {
      field.value = "";
      look();
      view.canvas.focus();
    }
  });
  return {
    element: el("div", { class: "find" }, field, count, iconButton("up", "Last match", () => step(-1)), iconButton("down", "Next match", () => step(1))),
    focus: () => field.focus(),
    step,
  };
}

function replayBar(model, replay, view) {
  const slider = el("input", { type: "range", min: 0, max: replay.end, value: replay.end, step: 1, "aria-label": "Simulation", oninput: () => go(Number(slider.value)) });
  const shown = el("output");
  const button = iconButton("play", "Play", () => (playing ? stop() : play()));
  let playing = null;
  function go(time) {
    const now = Math.max(0, Math.min(replay.end, Math.round(time) || 0));
    slider.value = now;
    const whole_ = now === replay.end;
    view.setTime(whole_ ? Infinity : now, whole_ ? null : replay.visits(now));
    const count = replay.born.filter((born) => born <= now).length;
    shown.textContent = now > replay.last ? `final rollout · ${whole(count)} nodes` : `${whole(now)} of ${whole(replay.last)} · ${whole(count)} nodes`;
    slider.setAttribute("aria-valuetext", shown.textContent);
    remember(view);
  }
  function stop() {
    clearInterval(playing);
    playing = null;
    replace(button, icon("play"));
    button.setAttribute("aria-label", "Play");
  }
  function play() {
    if (Number(slider.value) >= replay.end) go(0);
    replace(button, icon("pause"));
    button.setAttribute("aria-label", "Pause");
    const stride = Math.max(1, Math.round(replay.end / 200));
    playing = setInterval(() => {
      go(Number(slider.value) + stride);
      if (Number(slider.value) >= replay.end) stop();
    }, 60);
  }
  const note = replay.exact
    ? "Replay: nodes by the simulation that made them; visits follow from the logged draws and agree with the logged counts at the end. Values and Q are those of the finished tree."
    : "Replay: nodes by the simulation that made them. Visits over time are not in the log of this search, so N, widths and Q are those of the finished tree.";
  const element = el("div", { class: "replay" }, button, slider, shown, el("p", {}, note));
  const now = replay.end > replay.last ? `final rollout · ${whole(model.nodes.length)} nodes` : `${whole(replay.last)} of ${whole(replay.last)} · ${whole(model.nodes.length)} nodes`;
  shown.textContent = now;
  return { element, go, step: (by) => go(Number(slider.value) + by) };
}

function keys(finder, slider) {
  document.addEventListener("keydown", (event) => {
    if (typing(event) || document.querySelector("dialog[open]")) return;
    const act = { "/": finder.focus, n: () => finder.step(1), N: () => finder.step(-1), "[": () => slider.step(-1), "]": () => slider.step(1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
