// Everything that is known about one node.

import { post } from "../lib/api.js";
import { el, icon, replace } from "../lib/dom.js";
import { NONE, exactly, oneLine, percent, unit, whole } from "../lib/format.js";
import { armsAt, beta, puct, widens } from "./bandit.js";
import { difference } from "./difference.js";
import { KINDS, drawers, kindOf, meanOf } from "./model.js";

/** tree: {id, model, unseen, feedback}; actions: {select(id), focus(id), judged(verdict)}. */
export function showPanel(panel, tree, id, actions) {
  const node = tree.model.nodes[id];
  replace(panel,
    summary(tree, node, actions),
    text(tree.model, node),
    changes(tree.model, node, actions),
    revision(node),
    node.parent !== null && selection(tree, tree.model.nodes[node.parent], node, actions),
    node.children.length > 0 && selection(tree, node, null, actions),
    tokens(node),
    feedback(tree, node, actions),
    branch(tree, node));
  panel.scrollTop = 0;
}

function section(title, ...content) {
  return el("section", {}, el("header", {}, el("h3", {}, title)), ...content);
}

const fact = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value));

function summary({ model }, node, actions) {
  const kind = kindOf(node);
  const q = meanOf(node);
  const tone = { right: "good", wrong: "bad", truncated: "warn" }[kind] ?? "";
  return el("section", {},
    el("header", {},
      el("h2", {}, node.id === 0 ? "Prompt (node 0)" : `Node ${node.id}`),
      el("span", { class: "row" },
        node.parent !== null && el("button", { type: "button", onclick: () => actions.select(node.parent) }, "Parent"),
        el("button", { type: "button", onclick: () => actions.focus(node.id) }, "Centre"))),
    el("p", { class: tone }, KINDS[kind], model.chosen.has(node.id) ? ", on the chosen path" : "", model.committed.has(node.id) ? ", committed" : ""),
    el("dl", { class: "facts" },
      fact("Visits N", whole(node.visits)),
      fact("Mean value Q", unit(q)),
      fact("Prior P", node.parent === null ? NONE : unit(node.prior)),
      fact("Model value v", unit(node.value)),
      Object.entries(node.scores ?? {}).map(([name, score]) => fact(`Score ${name}`, unit(score))),
      fact("Outcome", node.outcome === null ? NONE : `${unit(node.outcome, 2)} (${node.outcome_source})`),
      fact("Draws m", whole(node.multiplicity)),
      node.policy && fact("Drawn by", drawers(node)),
      fact("Depth", whole(node.depth)),
      fact("Simulation", node.id === 0 ? NONE : node.simulation === 0 ? "final rollout" : whole(node.simulation)),
      fact("Tokens spent", whole(node.tokens_spent)),
      fact("Ends as", node.pruned_by ? `pruned by ${node.pruned_by}` : node.terminal ?? NONE),
      fact("Answer tokens", whole(node.length)),
      fact("Release", el("code", {}, node.release || NONE))));
}

function text(model, node) {
  const before = model.steps(node.id).slice(0, -1).map((above) => above.text).join("");
  return section("Full text, to the end of this node",
    el("pre", { tabindex: 0, "aria-label": "Text to the end of this node" },
      el("span", { class: "before" }, model.prompt, before),
      node.id !== 0 && el("span", { class: "own" }, node.text || "(adds no text)")));
}

const CHANGES = { same: "span", gone: "del", new: "ins" };

/** How an answer differs from the one that it betters. */
function changes(model, node, actions) {
  const old = node.id === 0 ? null : model.bettered(node.id);
  if (old === null) return false;
  const parts = difference(model.text(old.id), model.text(node.id));
  return section(`Difference to the answer that it betters, node ${old.id}`,
    el("pre", { tabindex: 0, "aria-label": `Difference to the answer of node ${old.id}` },
      parts.map(([kind, part]) => el(CHANGES[kind], {}, part))),
    el("button", { type: "button", onclick: () => actions.select(old.id) }, `Node ${old.id}`));
}

const CLOSED = {
  context: "No better answer was asked for: problem, answer and feedback leave no room for one.",
  feedback: "No better answer was asked for: no feedback could be had.",
};

/** What was said of an answer when better ones were asked for. */
function revision({ revision: asked }) {
  if (!asked) return false;
  return section("Feedback on this answer, as the policy was given it",
    el("pre", { tabindex: 0, "aria-label": "Feedback on this answer" }, asked.feedback),
    asked.shortened && el("p", { class: "note" }, "The answer was shown to it without its middle: all of it left no room for another."),
    asked.closed && el("p", { class: "note" }, CLOSED[asked.closed]));
}

function tokens(node) {
  if (!node.tokens.length) return false;
  return section(`Tokens of this node (${node.tokens.length}), id and probability when drawn`,
    el("div", { class: "tokens", tabindex: 0, "aria-label": "Token ids and probabilities" }, node.tokens.map((token, i) =>
      el("span", { title: `log-probability ${unit(node.logprobs[i], 4)}` }, token, el("small", {}, percent(Math.exp(node.logprobs[i])))))));
}

/** How selection saw the arms at `node`; `here` is the child that the panel is about, if any. */
function selection(tree, node, here, actions) {
  const { model, unseen } = tree;
  const { params } = model;
  const arms = armsAt(model, node, unseen);
  const open = arms.filter((arm) => arm.open);
  const thompson = params.algorithm === "mcts" && params.select === "thompson";
  const terms = new Map(puct(open, params).map((term) => [term.arm, term]));
  const own = here && terms.get(arms.find((arm) => arm.node === here));
  return section(here ? `As an arm of its parent, node ${node.id}` : "Its arms",
    here && own && formula(own),
    here && !own && el("p", { class: "note" }, "Selection does not offer it now: ", closedWhy(model, here), "."),
    thompson && here && betaLine(arms.find((arm) => arm.node === here)),
    el("div", { class: "scroll" }, table(arms, terms, thompson, here, model, actions)),
    el("p", { class: "note" }, how(params, thompson)));
}

function closedWhy(model, node) {
  if (kindOf(node) === "pruned") return "it was pruned";
  if (node.terminal && model.params.action.kind === "refine") {
    return node.children.length ? "nothing new can follow it" : "it is not bettered: it is right, cut short, closed, or as deep as may be";
  }
  if (node.terminal) return "a finished answer is not drawn again";
  return "all but 1 % of what the policy can write below it is known";
}

function how(params, thompson) {
  if (thompson) return `This search selects by Thompson sampling (κ = ${params.kappa}${params.kappa_growth ? `, growing ${params.kappa_growth} times with each step that is left` : ""}): the largest of one draw from each Beta, times the chance of an answer not yet known.${params.abandon ? ` A draw is given up if its tokens would bring ${params.abandon_below ? `less than ${params.abandon_below} times what they would bring` : "more"} elsewhere.` : ""} PUCT is shown beside it, with c_init ${params.c_init}.`;
  if (params.algorithm === "mcts" || params.algorithm === "rap") return "This search selects the largest PUCT score. Figures are those at its end, nothing in flight.";
  return `${params.algorithm} does not select by PUCT; its terms are shown for comparison.`;
}

function formula({ arm, q, c, total, root, u, score }) {
  return el("div", { class: "formula" },
    el("div", {}, `score = Q + c·P·√Σn / (1 + n)`),
    el("div", {}, `= ${unit(q)} + ${unit(c)}·${unit(arm.prior)}·${unit(root, 2)} / ${1 + arm.n}`),
    el("div", {}, `= ${unit(q)} + ${unit(u)} = `, el("strong", {}, unit(score))),
    el("div", { class: "muted" }, `Σn = ${total}, n = ${arm.n}, w = ${unit(arm.w, 2)}`));
}

function betaLine(arm) {
  const { a, b, mean, deviation } = beta(arm);
  return el("div", { class: "formula" },
    el("div", {}, `Beta(κq + w, κ(1 − q) + n − w) = Beta(${unit(a, 2)}, ${unit(b, 2)})`),
    el("div", { class: "muted" }, `κ = ${unit(arm.kappa, 2)}, q = ${unit(arm.model)}; mean ${unit(mean)} ± ${unit(deviation)}; times ${unit(arm.unseen)}, the chance of an answer not yet known`));
}

function table(arms, terms, thompson, here, model, actions) {
  const order = (arm) => terms.get(arm)?.score ?? -1;
  const rows = [...arms].sort((x, y) => order(y) - order(x));
  const heads = thompson ? ["Arm", "n", "Q", "PUCT", "α", "β"] : ["Arm", "n", "Q", "P", "U", "Score"];
  return el("table", { class: "arms" },
    el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { scope: "col", class: i ? "number" : false }, head)))),
    el("tbody", {}, rows.slice(0, 40).map((arm) => row(arm, terms.get(arm), thompson, arm.node !== null && arm.node === here, model, actions))),
    rows.length > 40 && el("tfoot", {}, el("tr", {}, el("td", { colspan: heads.length, class: "muted" }, `and ${rows.length - 40} more`))));
}

function row(arm, term, thompson, current, model, actions) {
  const q = term?.q ?? (arm.n ? arm.w / arm.n : arm.model);
  const name = arm.node === null ? "draw afresh" : oneLine(model.label(arm.node), 24);
  const rest = thompson ? [term?.score, beta(arm).a, beta(arm).b] : [arm.prior, term?.u, term?.score];
  const figures = [whole(arm.n), unit(q, 2), ...rest.map((figure) => unit(figure, 2))];
  return el("tr", { class: current ? "here" : false },
    el("td", { title: arm.node === null ? "One more continuation from here" : model.label(arm.node) },
      arm.node === null ? el("em", {}, name) : el("button", { type: "button", onclick: () => actions.select(arm.node.id) }, name)),
    figures.map((figure) => el("td", { class: "number" }, figure)));
}

function feedback(tree, node, actions) {
  const about = tree.feedback.filter((verdict) => verdict.node === node.id);
  const ends = node.terminal === "eos" || node.terminal === "stop";
  if (!ends && !about.length) return false;
  const comment = el("input", { placeholder: "Why (optional)", maxlength: 2000, "aria-label": "Comment" });
  const said = el("p", { class: "note", role: "status" });
  const judge = async (outcome) => {
    try {
      actions.judged(await post(`/v1/trees/${tree.id}/feedback`, { node: node.id, outcome, comment: comment.value }));
    } catch (error) {
      replace(said, error.message);
      said.className = "said";
    }
  };
  return section("Is this answer right?",
    about.map((verdict) => el("p", { class: verdict.outcome >= 1 ? "good" : "bad" },
      verdict.outcome >= 1 ? "✓ right" : verdict.outcome > 0 ? unit(verdict.outcome, 2) : "✕ wrong",
      el("span", { class: "muted" }, ` · ${verdict.source}, ${exactly(verdict.created)}${verdict.comment ? ` · ${verdict.comment}` : ""}`))),
    ends && comment,
    ends && el("div", { class: "row" },
      el("button", { type: "button", onclick: () => judge(1) }, "✓ Right"),
      el("button", { type: "button", onclick: () => judge(0) }, "✕ Wrong")),
    said);
}

function branch(tree, node) {
  const finished = node.terminal === "eos" || node.terminal === "stop";
  return section("Search on from here",
    finished
      ? el("p", { class: "note" }, "This answer is finished. Branch from a node above it.")
      : el("a", { class: "button", href: `/search?tree=${encodeURIComponent(tree.id)}&node=${node.id}` }, icon("branch"), "Branch from this node"));
}
