"""Which answer a tree gives: the rules over its complete leaves, each counted as often as it was drawn.

With f_j the final answer of draw j and r(y_j) its judgement (the verifier's outcome where a verifier grades, else the
outcome model's value):

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import takewhile

from ramify.search.grouping import Grouping
from ramify.search.records import Answer, AnswerRule
from ramify.search.tree import Node, Tree


@dataclass(slots=True)
class _Class:
    """Draws with one and the same final answer."""

    final: str | None
    leaves: Counter[int] = field(default_factory=Counter)
    """Node id to draws."""


def rank(
    tree: Tree, finals: Mapping[int, str | None], rule: AnswerRule, at_tokens: int | None = None
) -> list[Answer]:
    """The distinct final answers, best first; empty where no answer was complete.

    `at_tokens` leaves out every draw that landed after the search had generated more tokens than that: the answer
    that the search would have given then. Texts that hold no answer get no votes, and come last.
    Of equals the more often drawn, then the better judged, then the earlier is first; `majority` asks no judge.
    """
    classes: dict[str | None, _Class] = {}
    for completion in tree.completions:
        if at_tokens is None or completion.tokens <= at_tokens:
            final = finals.get(completion.node)
            classes.setdefault(final, _Class(final)).leaves[completion.node] += 1
    weights = {c.final: _weight(tree, c, rule) for c in classes.values()}
    champion = _champion(tree).id if rule == "most_visited" else None
    total = sum(weights.values())
    ranked = sorted(
        classes.values(),
        key=lambda c: (
            c.final is None,
            champion not in c.leaves,
            -weights[c.final],
            -c.leaves.total(),
            -(tree.leaf_value(_representative(tree, c)) or 0.0) if rule != "majority" else 0.0,
            min(c.leaves),
        ),
    )
    return [_answer(tree, c, weights[c.final] / total if total else 0.0) for c in ranked]


def _weight(tree: Tree, group: _Class, rule: AnswerRule) -> float:
    if group.final is None:
        return 0.0
    leaves = [(tree.nodes[i], m) for i, m in group.leaves.items()]
    if rule == "majority":
        return float(sum(m for _, m in leaves))
    if rule == "orm_vote":
        return sum(m * (tree.leaf_value(leaf) or 0.0) for leaf, m in leaves)
    if rule == "orm_max":
        return max((tree.leaf_value(leaf) or 0.0) for leaf, _ in leaves)
    return float(sum(leaf.visits for leaf, _ in leaves))


def _champion(tree: Tree) -> Node:
    """The end of the path of most visits: committed steps first, then at each node the most visited child."""
    node, committed = tree.root, set(tree.committed)
    while children := tree.children(node):
        node = max(children, key=lambda c: (c.id in committed, c.visits, c.mean or 0.0, -c.id))
    return node


def _representative(tree: Tree, group: _Class) -> Node:
    """The leaf that the answer's text is taken from: the best judged, then the earliest."""
    return max(
        (tree.nodes[i] for i in group.leaves), key=lambda leaf: ((tree.leaf_value(leaf) or 0.0), -leaf.id)
    )


def _answer(tree: Tree, group: _Class, votes: float) -> Answer:
    leaf = _representative(tree, group)
    return answer_at(tree, leaf, group.final, votes)


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


class EarlyStop:
    """Votes for each final answer, counted draw by draw as the answer rule counts them, and whether they settle it.

    `verified`: a verifier has accepted an answer. `unbeatable`: even if every answer that may still be drawn were one
    full vote for the second, it would stay behind. `posterior`: the leader is the commoner of the two with a
    probability above the threshold (Aggarwal et al. 2023, "adaptive consistency", the Beta criterion).
    """

    def __init__(self, tree: Tree, grouping: Grouping) -> None:
        self.tree, self.grouping = tree, grouping
        self.votes: defaultdict[str, float] = defaultdict(float)
        """Draws under `majority`, the sum of their judgements under `orm_vote`. Texts without an answer have none."""
        self._counted = 0

    def settled(self, left: int) -> bool:
        """Whether the leading answer may be given now, with at most `left` more answers to come. Only answers that are
        grouped by now have a vote."""
        kind, finals = self.tree.params.early_stop, self.grouping.finals
        drawn = self.tree.completions[self._counted :]
        if kind != "verified":
            drawn = list(takewhile(lambda completion: completion.node in finals, drawn))
        self._counted += len(drawn)
        new = [self.tree.nodes[completion.node] for completion in drawn]
        if kind == "verified":
            return any(node.outcome == 1.0 for node in new)
        self._count(new)
        first, second, *_ = *nlargest(2, self.votes.values()), 0.0, 0.0
        if kind == "unbeatable":
            return first - second > left
        return bool(self.votes) and leads(first, second) > self.tree.params.early_stop_threshold

    def _count(self, draws: list[Node]) -> None:
        for node in draws:
            final = self.grouping.finals[node.id]
            if final is not None:
                self.votes[final] += (
                    (self.tree.leaf_value(node) or 0.0) if self.tree.params.answer == "orm_vote" else 1
                )


def leads(first: float, second: float) -> float:
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), by the normal approximation to the Beta; exact at equality."""
    a, b = first + 1, second + 1
    mean = a / (a + b)
    deviation = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    return 0.5 * (1 + math.erf((mean - 0.5) / (deviation * math.sqrt(2))))
