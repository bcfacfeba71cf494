// A tree as the page needs it: the logged document, and figures derived from it.

import { oneLine } from "../lib/format.js";

/** The kind of a node, for its shape: one word, from its record alone. */
export function kindOf(node) {
  if (node.outcome !== null) return node.outcome >= 1 ? "right" : "wrong";
  if (node.terminal === "truncated") return "truncated";
  if (node.pruned || node.terminal === "pruned") return "pruned";
  if (node.terminal) return "done";
  return node.children.length || node.id === 0 ? "inner" : "open";
}

export const KINDS = {
  inner: "written on",
  open: "not written on",
  done: "finished answer",
  right: "judged right",
  wrong: "judged wrong",
  truncated: "cut by a cap",
  pruned: "pruned",
};

/** Q = W/N, or the model's own value before any visit. */
export const meanOf = (node) => (node.visits ? node.value_sum / node.visits : node.value);

/** The policies that drew a node, the first of all first. */
export function drawers(node) {
  if (!node.drawn_by) return node.policy;
  const others = Object.keys(node.drawn_by).filter((name) => name !== node.policy);
  return [node.policy, ...others].map((name) => `${name} (${node.drawn_by[name]})`).join(", ");
}

export class Model {
  /** nodes: by id, parents before children. final: whether the tree has ended, so that children may be put in order. */
  constructor(prompt, nodes, { chosen = null, final = true, params = null, sampling = null, completions = [], committed = [] } = {}) {
    Object.assign(this, { prompt, nodes, params, sampling, completions, final });
    this.policies = params?.policies ?? [];
    this.committed = new Set(committed);
    this.chosen = new Set(chosen === null ? [] : this.lineage(chosen).map((node) => node.id));
    this.answer = chosen;
  }

  static of(document) {
    return new Model(document.prompt, document.nodes, {
      chosen: document.answer?.node ?? null,
      params: document.params,
      sampling: document.sampling,
      completions: document.completions,
      committed: document.committed,
    });
  }

  lineage(id) {
    const path = [];
    for (let at = id; at !== null && at !== undefined; at = this.nodes[at].parent) path.push(this.nodes[at]);
    return path.reverse();
  }

  /** The nodes that make up the answer as far as a node: those below the prompt, or below the answer that it betters. */
  steps(id) {
    const path = this.lineage(id).slice(1);
    return path.slice(path.slice(0, -1).findLastIndex((node) => node.terminal) + 1);
  }

  /** The answer as far as a node. */
  text(id) {
    return this.steps(id).map((node) => node.text).join("");
  }

  /** The node that ends the answer which a node's answer betters; null for a fresh answer. */
  bettered(id) {
    const first = this.steps(id)[0];
    return first?.parent ? this.nodes[first.parent] : null;
  }

  label(node) {
    if (node.id === 0) return oneLine(this.prompt, 200) || "(empty prompt)";
    return oneLine(node.text, 200) || (node.terminal === "eos" ? "(end)" : "⏎");
  }

  /** Children as they are shown: of a finished tree the most visited first, of a growing one as they came. */
  children(node) {
    const children = node.children.map((id) => this.nodes[id]);
    return this.final ? children.sort((a, b) => b.visits - a.visits || a.id - b.id) : children;
  }

  get lastSimulation() {
    return this.nodes.reduce((last, node) => Math.max(last, node.simulation), 0);
  }

  /** A sentence for those who do not see the drawing. */
  describe(node) {
    const q = meanOf(node);
    return [
      `Node ${node.id}, depth ${node.depth}: ${this.label(node)}.`,
      `${KINDS[kindOf(node)]}, ${node.visits} visits`,
      q === null ? "" : `, mean value ${q.toFixed(2)}`,
      node.policy ? `, drawn by ${drawers(node)}` : "",
      this.chosen.has(node.id) ? ", on the chosen path" : "",
      node.children.length ? `, ${node.children.length} children.` : ".",
    ].join(" ").replaceAll(" ,", ",");
  }
}

/** Merge the nodes of a `search.progress` event into a growing tree. */
export function grow(nodes, news) {
  for (const told of news) {
    const known = nodes[told.id];
    const fields = { ...told, value_sum: told.visits && told.mean !== null ? told.mean * told.visits : 0 };
    if (known) {
      Object.assign(known, fields, { children: known.children });
    } else {
      nodes[told.id] = { ...fields, children: [] };
      if (told.parent !== null) nodes[told.parent].children.push(told.id);
    }
  }
}
