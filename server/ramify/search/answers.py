"""Which answer a tree gives, and when it is settled.

The rules go over the complete leaves, each counted as often as it was drawn; without `replacement`, where each is drawn
once, by its share of the policy's draws (`Tree.share`). (`majority` is not for such trees: by shares it is the policy's
own vote, which the search has no part in.) With f_j the final answer of draw j and r(y_j) its leaf value (the
verifier's outcome if a verifier grades, else the outcome model's value or the policy's confidence):

- `majority`      argmax_f Σ_j 1[f_j = f]
- `orm_max`       the answer of argmax_j r(y_j)
- `orm_vote`      argmax_f Σ_{j: f_j = f} r(y_j)
- `most_visited`  the answer at the end of the path of most visits (the others by the visits of their leaves)

(TS-LLM §3.3; some write-ups swap the names of the two ORM formulas.) Weights are used as they are: rescaling them
would give a lone candidate, or equal ones, weight 0.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import nlargest

from ramify.search.builder import TreeBuilder
from ramify.search.records import Answer, AnswerRule
from ramify.search.tree import Node, Tree


def rank(
    tree: Tree, finals: Mapping[int, str | None], rule: AnswerRule, at_tokens: int | None = None
) -> list[Answer]:
    """Return the distinct final answers, best first; empty if no answer was complete.

    finals: the final answer by the id of the node that ends it. at_tokens: leave out every draw that landed after the
    search had generated more tokens than that, for the answer that it would have given then.
    Texts that hold no answer get no votes, and come last. Of equals the more often drawn, then the better judged, then
    the earlier is first; `majority` asks no judge."""
    groups = defaultdict[str | None, dict[int, float]](dict)
    for leaf, count in _counts(tree, rule, at_tokens).items():
        groups[finals.get(leaf)][leaf] = count
    weights = {
        final: 0.0 if final is None else _weight(tree, leaves, rule) for final, leaves in groups.items()
    }
    best = {final: _best(tree, leaves) for final, leaves in groups.items()}
    champion = most_visited(tree).id if rule == "most_visited" else None
    total = sum(weights.values())
    ranked = sorted(
        groups,
        key=lambda final: (
            final is None,
            champion not in groups[final],
            -weights[final],
            -sum(groups[final].values()),
            -(tree.leaf_value(best[final]) or 0.0) if rule != "majority" else 0.0,
            min(groups[final]),
        ),
    )
    return [answer_at(tree, best[f], f, weights[f] / total if total else 0.0) for f in ranked]


def choose(tree: Tree, finals: Mapping[int, str | None]) -> None:
    """Write a tree's candidates and its answer. If no answer is complete, that is the best truncated text."""
    tree.candidates = rank(tree, finals, tree.params.answer)
    if not tree.candidates and (cut := [node for node in tree.nodes if node.terminal == "truncated"]):
        leaf = max(cut, key=lambda node: (node.visits, -node.id))
        tree.candidates = [answer_at(tree, leaf, None, 0.0)]
    tree.answer = tree.candidates[0] if tree.candidates else None


def _counts(tree: Tree, rule: AnswerRule, at_tokens: int | None) -> Mapping[int, float]:
    """Return what each complete leaf counts for, by its id."""
    drawn = Counter(c.node for c in tree.completions if at_tokens is None or c.tokens <= at_tokens)
    if tree.params.replacement or rule not in ("majority", "orm_vote"):
        return drawn
    return {leaf: tree.share(tree.nodes[leaf]) for leaf in drawn}


def _weight(tree: Tree, leaves: Mapping[int, float], rule: AnswerRule) -> float:
    """Return the weight of one final answer. leaves: what each of those that end with it counts for, by its id."""
    values = [(tree.leaf_value(tree.nodes[i]) or 0.0, m) for i, m in leaves.items()]
    if rule == "majority":
        return float(sum(leaves.values()))
    if rule == "orm_vote":
        return sum(m * value for value, m in values)
    if rule == "orm_max":
        return max(value for value, _ in values)
    return float(sum(tree.nodes[i].visits for i in leaves))


def _best(tree: Tree, leaves: Iterable[int]) -> Node:
    """The leaf whose text stands for a final answer: the best judged, then the earliest."""
    return max((tree.nodes[i] for i in leaves), key=lambda leaf: (tree.leaf_value(leaf) or 0.0, -leaf.id))


def most_visited(tree: Tree) -> Node:
    """The end of the path of most visits: committed steps first, then at each node the most visited child that no
    safety scorer has closed."""
    node, committed = tree.root, set(tree.committed)
    while children := [c for c in tree.children(node) if c.terminal != "pruned"]:
        node = max(children, key=lambda c: (c.id in committed, c.visits, c.mean or 0.0, -c.id))
    return node


def answer_at(tree: Tree, leaf: Node, final: str | None, votes: float) -> Answer:
    return Answer(
        node=leaf.id,
        text=tree.text(leaf),
        final=final,
        value=leaf.value,
        visits=leaf.visits,
        votes=votes,
        outcome=leaf.outcome,
        outcome_source=leaf.outcome_source,
    )


def settled(builder: TreeBuilder, votes: Mapping[str, float], left: int) -> bool:
    """Tell whether `early_stop` lets the leading answer be given now.

    votes: of each final answer, draw by draw (`Grouping.votes`). left: the most answers that may still be drawn.

    `verified`: a verifier has accepted an answer. `unbeatable`: even if every answer that may still be drawn were one
    full vote for the second, it would stay behind. `posterior`: the leader is the commoner of the two with a
    probability above the threshold (Aggarwal et al. 2023, "adaptive consistency", the Beta criterion)."""
    params = builder.tree.params
    if params.early_stop == "verified":
        return builder.best is not None and builder.best.outcome == 1.0
    first, second, *_ = *nlargest(2, votes.values()), 0.0, 0.0
    if params.early_stop == "unbeatable":
        return first - second > left
    return bool(votes) and leads(first, second) > params.early_stop_threshold


def probability_right(builder: TreeBuilder, votes: Mapping[str, float]) -> float:
    """Return the probability, in [0, 1], that the best answer so far is right; 0 if there is none.

    A judge says it: the leaf value of the best answer. Without one the draws do, m of n for the leading answer, and one
    more that nobody has seen speaks against it: m/(n + 1). The policy's confidence is no such judge; a draw then counts
    by it. votes: as in `settled`."""
    if builder.best is None:
        return 0.0
    judged = builder.tree.leaf_value(builder.best)
    if judged is not None and builder.tree.params.grader != "confidence":
        return judged
    return max(votes.values(), default=0.0) / (len(builder.tree.completions) + 1)


def leads(first: float, second: float) -> float:
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), by the normal approximation to the Beta; exact at equality."""
    a, b = first + 1, second + 1
    mean = a / (a + b)
    deviation = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    return 0.5 * (1 + math.erf((mean - 0.5) / (deviation * math.sqrt(2))))
