// What selection makes of a node's arms, recomputed from the log by design.md §3.
//
// PUCT (AlphaZero's pseudocode): with n(a) = N(a) + O(a), score(a) = Q(a) + c(s)·P(a)·√max(1, Σn) / (1 + n(a)),
// c(s) = c_init + ln((Σn + c_base + 1) / c_base). In a logged tree nothing is in flight: O = 0 and n = N.
// Thompson: Beta(κq + w, κ(1 − q) + n − w), q the arm's model value, n its visits, w the sum of their values.

const NOTHING_NEW = 0.01;
const FLOOR = 1e-3;

/** Whether "draw afresh here" is an arm beside the children. */
export const widens = (params) =>
  params.algorithm === "mcts" || params.algorithm === "gumbel" ? params.expand === "path" || params.widen : false;

/** Ids of the nodes below which a draw would bring nothing new; such nodes are no arms where a search widens. */
export function closedNodes(model) {
  const closed = new Set();
  for (let id = model.nodes.length - 1; id >= 0; id--) {
    const node = model.nodes[id];
    if (node.terminal) closed.add(id);
    else if (model.sampling.temperature && node.children.length) {
      const known = node.children.filter((child) => closed.has(child));
      const mass = known.reduce((sum, child) => sum + Math.exp(model.nodes[child].logprobs.reduce((a, b) => a + b, 0)), 0);
      if (mass >= 1 - NOTHING_NEW) closed.add(id);
    }
  }
  return closed;
}

const modelValue = (node, parent) => node.value ?? node.outcome ?? parent.value ?? 0.5;

/** Every child and, where the search widens, the fresh arm (node null); `open` says whether selection may take it. */
export function armsAt(model, node, closed) {
  const fresh = widens(model.params);
  const children = node.children.map((id) => model.nodes[id]);
  const total = children.reduce((sum, child) => sum + child.multiplicity, 0);
  const scale = fresh && total ? total / (total + 1) : 1;
  const arms = children.map((child) => ({
    node: child,
    n: child.visits,
    w: child.value_sum,
    model: modelValue(child, node),
    prior: child.prior * scale,
    open: !child.pruned && (!fresh || (!child.terminal && !closed.has(child.id))),
  }));
  if (fresh) {
    arms.push({
      node: null,
      n: node.fresh_visits,
      w: node.fresh_value_sum,
      model: modelValue(node, node),
      prior: 1 / (total + 1),
      open: !closed.has(node.id),
    });
  }
  return arms;
}

/** The terms of every open arm's PUCT score; `arms` are those that selection compares. */
export function puct(arms, { c_init, c_base }) {
  const total = arms.reduce((sum, arm) => sum + arm.n, 0);
  const c = c_init + Math.log((total + c_base + 1) / c_base);
  const root = Math.sqrt(Math.max(1, total));
  return arms.map((arm) => {
    const q = arm.n ? arm.w / arm.n : arm.model;
    const u = (c * arm.prior * root) / (1 + arm.n);
    return { arm, q, c, total, root, u, score: q + u };
  });
}

/** The Beta that Thompson sampling draws an arm's value from. */
export function beta(arm, kappa) {
  const a = Math.max(FLOOR, kappa * arm.model + arm.w);
  const b = Math.max(FLOOR, kappa * (1 - arm.model) + arm.n - arm.w);
  return { a, b, mean: a / (a + b), deviation: Math.sqrt((a * b) / ((a + b) ** 2 * (a + b + 1))) };
}
