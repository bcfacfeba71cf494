"""TS-LLM's D⁺ (Feng et al. 2023): the distinct right answers of a round, to be imitated whoever drew them.

An answer counts once, however often and in however many trees it was drawn. Each weighs 1/n if n answers to its problem
are imitated (`per_problem`), or else an easy problem, which has many, would weigh more than a hard one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ramify.search.tree import Node
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree

__all__ = ["imitated", "right_answers"]


def right_answers(trees: Sequence[LabelledTree], least: float) -> list[list[Node]]:
    """Return for every tree the ends of its right answers, those left out that a tree before it, or the same one, has,
    and those that an earlier round has learned from.

    least: the least outcome of an answer that is right. Trees that may not be trained on have none."""
    known: set[tuple[int, ...]] = set()
    ends: list[list[Node]] = []
    for labelled in trees:
        ends.append([])
        new = [n for n in labelled.tree.complete() if n.id not in labelled.learned]
        right = [n for n in new if labelled.outcomes.get(n.id, 0.0) >= least]
        for leaf in right if labelled.tree.train else []:
            sequence = labelled.tree.sequence(leaf)
            if sequence not in known:
                known.add(sequence)
                ends[-1].append(leaf)
    return ends


def imitated(
    trees: Sequence[LabelledTree], ends: Sequence[Sequence[Node]], config: LearningConfig
) -> list[dict[int, float]]:
    """Return the weight of -log π by node id, tree by tree: the sum of those of the answers that lead through a node.

    ends: as `right_answers` gave them."""
    answers = Counter[tuple[int, ...]]()
    for labelled, own in zip(trees, ends, strict=True):
        answers[problem_of(labelled)] += len(own)
    weights: list[dict[int, float]] = []
    for labelled, own in zip(trees, ends, strict=True):
        weight = 1.0 / answers[problem_of(labelled)] if own and config.answer_weight == "per_problem" else 1.0
        nodes = Counter(node.id for leaf in own for node in labelled.tree.lineage(leaf)[1:])
        weights.append({i: weight * count for i, count in nodes.items()})
    return weights


def problem_of(labelled: LabelledTree) -> tuple[int, ...]:
    """Return the prompt that names the problem, whatever better answer a tree's own prompt asks for."""
    return labelled.tree.prompt_tokens if labelled.problem is None else labelled.problem
