// The scores that selection gives a node's arms, recomputed from the logged tree as server/ramify/search/selection.py
// computes them while it searches.
//
// PUCT (AlphaZero's pseudocode): with n(a) = N(a) + O(a), score(a) = Q(a) + c(s)·P(a)·√max(1, Σn) / (1 + n(a)),
// c(s) = c_init + ln((Σn + c_base + 1) / c_base). In a logged tree nothing is in flight: O = 0 and n = N.
// Thompson: Beta(κq + w, κ(1 − q) + n − w), with q the arm's model value, n its visits and w the sum of their values; a
// draw from it is multiplied by the policy's probability that the arm brings an answer not yet known.

const NOTHING_NEW = 0.01;
const FLOOR = 1e-3;

/** True if "draw afresh here" is an arm beside the children. */
export const widens = (params) =>
  params.algorithm === "mcts" || params.algorithm === "gumbel" ? params.expand === "path" || params.widen : false;

/** Compute, by node id, the policy's probability that a draw ends in a new answer: one from the node itself (`fresh`) and
 * one from it or from any node below (`below`). It is 0 if it is under 1 %. */
export function unseenBelow(model) {
  const refines = model.params.action.kind === "refine";
  const seen = model.nodes.map(() => new Map()); // by policy: a draw's log-probabilities are those of one
  const fresh = new Float64Array(model.nodes.length);
  const below = new Float64Array(model.nodes.length);
  for (let id = model.nodes.length - 1; id >= 0; id--) {
    const node = model.nodes[id];
    if (model.sampling.temperature) {
      for (const child of node.children) {
        const { logprobs, terminal, policy } = model.nodes[child];
        const below = terminal ? 1 : (seen[child].get(policy) ?? 0);
        if (below) seen[id].set(policy, (seen[id].get(policy) ?? 0) + below * Math.exp(logprobs.reduce((a, b) => a + b, 0)));
      }
    }
    const open = !node.terminal || (refines && canBeBettered(model, node));
    const untried = id === 0 && model.policies.some((name) => !seen[id].has(name));
    const left = seen[id].size && !untried ? 1 - Math.min(...seen[id].values()) : 1;
    fresh[id] = open && left >= NOTHING_NEW ? left : 0;
    // An answer's prompt is its own: a draw from it passes no node below.
    below[id] = refines ? Number(fresh[id] > 0 || node.children.some((child) => below[child])) : fresh[id];
  }
  return { fresh, below };
}

/** Whether better answers than the one that a node ends can be drawn. */
export function canBeBettered({ params }, node) {
  const complete = node.terminal === "eos" || node.terminal === "stop";
  return complete && node.outcome !== 1 && node.depth < params.max_depth && !node.revision?.closed;
}

/** The model's value of a node; if it was not judged, as a prompt is not, the mean of what was drawn from it. */
function freshValue(node, children) {
  const judged = children.filter((child) => child.value != null);
  if (node.value != null || !judged.length) return node.value ?? 0.5;
  const drawn = judged.reduce((sum, child) => sum + child.multiplicity, 0);
  return judged.reduce((sum, child) => sum + child.multiplicity * child.value, 0) / drawn;
}

/** List every child and, if the search widens, the fresh arm (node null); `open` arms are those selection may take. */
export function armsAt(model, node, unseen) {
  const fresh = widens(model.params);
  const children = node.children.map((id) => model.nodes[id]);
  const total = children.reduce((sum, child) => sum + child.multiplicity, 0);
  const scale = fresh && total ? total / (total + 1) : 1;
  const kappa = kappaAt(model);
  const arms = children.map((child) => ({
    node: child,
    kappa: kappa(child),
    n: child.visits,
    w: child.value_sum,
    model: child.value ?? (fresh ? null : child.outcome) ?? node.value ?? 0.5,
    prior: child.prior * scale,
    unseen: fresh ? unseen.below[child.id] : 1,
    open: !child.pruned && (!fresh || unseen.below[child.id] > 0),
  }));
  if (fresh) {
    arms.push({
      node: null,
      kappa: kappa(node),
      n: node.fresh_visits,
      w: node.fresh_value_sum,
      model: freshValue(node, children),
      prior: 1 / (total + 1),
      unseen: unseen.fresh[node.id],
      open: unseen.fresh[node.id] > 0,
    });
  }
  return arms;
}

/** Compute the terms of every arm's PUCT score; `arms` are those that selection compares. */
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

/** Return the function from a node to κ, the visits that its model value counts for. It grows with the steps that are
 * left until the mean depth of complete answers. */
function kappaAt({ params, nodes, completions }) {
  const { kappa, kappa_growth: growth } = params;
  if (!growth) return () => kappa;
  const drawn = completions ?? [];
  const end = drawn.length ? drawn.reduce((sum, { node }) => sum + nodes[node].depth, 0) / drawn.length : Math.min(params.max_depth, 32);
  return (node) => (kappa * (growth ** Math.min(100, Math.max(0, end - node.depth - 1)) - 1)) / (growth - 1);
}

/** Compute the Beta distribution that Thompson sampling draws an arm's value from. */
export function beta({ kappa, model, n, w }) {
  const a = Math.max(FLOOR, kappa * model + w);
  const b = Math.max(FLOOR, kappa * (1 - model) + n - w);
  return { a, b, mean: a / (a + b), deviation: Math.sqrt((a * b) / ((a + b) ** 2 * (a + b + 1))) };
}
