"""A round's trees as packed pieces: what policy and value are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ramify_trainer.learning.advantages import champion
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree, policy_refusal, refusal
from ramify_trainer.learning.networks import Reader
from ramify_trainer.learning.packing import Piece, ValueTargets, pack
from ramify_trainer.learning.prompts import as_judged
from ramify_trainer.learning.targets import (
    PolicyTargets,
    imitated,
    policy_targets,
    problem_of,
    right_answers,
    value_targets,
)

__all__ = ["packed_trees", "policy_lessons", "value_lessons", "with_reference"]


@dataclass(frozen=True, slots=True)
class PolicyLessons:
    """Targets of the policy on a round's trees, and what they hold in figures."""

    targets: Sequence[PolicyTargets]
    """Those of every tree, in their order."""
    figures: Mapping[str, float]
    """`dropped_share`: of the trees that may serve the objective, those that teach nothing by it; `right_answers`:
    distinct ones, and `right_problems`, the problems that have one: what there is to imitate; `replayed_answers`, those
    of them that earlier rounds drew."""


def policy_lessons(
    trees: Sequence[LabelledTree],
    config: LearningConfig,
    value: Reader | None,
    calibration: tuple[float, float],
    seed: int = 0,
) -> PolicyLessons:
    """Return what the trees teach the policy. `value` judges the champion paths of `path_ppo`, and is needed for
    nothing else."""
    fit = [policy_refusal(tree, config) is None for tree in trees]
    values: Sequence[Mapping[int, float]] = [{}] * len(trees)
    if value is not None:
        chosen = [champion(labelled.tree)[:-1] if ok else [] for labelled, ok in zip(trees, fit, strict=True)]
        states = [{node.id: (0.0, 1.0) for node in path} for path in chosen]
        values = _judged(as_read(trees, value), states, value, calibration)
    ends = right_answers(trees, config.correct)
    right = imitated(trees, ends, config)
    if config.objective == "sft":
        targets = [PolicyTargets(own) for own in right]
    else:
        targets = [
            policy_targets(labelled, config, own, (seed, i)) if ok else PolicyTargets({})
            for i, (labelled, ok, own) in enumerate(zip(trees, fit, values, strict=True))
        ]
    dropped = [not own.weights for own, ok in zip(targets, fit, strict=True) if ok]
    if config.imitate:
        targets = [replace(one, imitated=own) for one, own in zip(targets, right, strict=True)]
    figures = {
        "dropped_share": sum(dropped) / len(dropped) if dropped else 0.0,
        "right_answers": sum(map(len, ends)),
        "replayed_answers": sum(len(own) for one, own in zip(trees, ends, strict=True) if one.replayed),
        "right_problems": len({problem_of(one) for one, own in zip(trees, ends, strict=True) if own}),
    }
    return PolicyLessons(targets, figures)


def as_read(trees: Sequence[LabelledTree], reader: Reader) -> Sequence[LabelledTree]:
    """Return the trees as a network reads them: after the policy's prompts if it is the policy or has its trunk."""
    return trees if "policy" in reader.network.outputs else [as_judged(labelled) for labelled in trees]


def value_lessons(
    trees: Sequence[LabelledTree], config: LearningConfig, *, apart: bool
) -> list[ValueTargets]:
    """Return the targets of every tree; none of those that may not serve the value. apart: it is a model of its own,
    which is not asked what follows a request for a better answer."""
    return [_value_lesson(labelled, config, apart) for labelled in trees]


def _value_lesson(labelled: LabelledTree, config: LearningConfig, apart: bool) -> ValueTargets:
    if refusal(labelled) is not None:
        return {}
    targets = value_targets(labelled.tree, labelled.outcomes, config.lambda_return)
    if apart and labelled.problem is not None:
        targets.pop(0, None)
    return {i: target for i, target in targets.items() if i not in labelled.learned}


def packed_trees(
    trees: Sequence[LabelledTree],
    reader: Reader,
    policy: Sequence[PolicyTargets] | None,
    value: Sequence[ValueTargets] | None,
) -> list[Piece]:
    """Return the trees as pieces for a network that is read for `policy`, for `value`, or for both at once."""
    none = [None] * len(trees)
    return [
        piece
        for labelled, p, v in zip(as_read(trees, reader), policy or none, value or none, strict=True)
        for piece in pack(labelled.tree, reader.limit, policy=p, value=v, closing=reader.network.closing)
    ]


def with_reference(pieces: Sequence[Piece], reference: Reader) -> list[Piece]:
    """Return the pieces with a reference policy's log-probs as the column `reference` of `policy`."""
    added = []
    for piece, column in zip(pieces, reference.numbers(pieces, "policy"), strict=True):
        reading = piece.readings["policy"]
        reading = replace(reading, columns={**reading.columns, "reference": column})
        added.append(replace(piece, readings={**piece.readings, "policy": reading}))
    return added


def _judged(
    trees: Sequence[LabelledTree],
    states: Sequence[ValueTargets],
    value: Reader,
    calibration: tuple[float, float],
) -> list[dict[int, float]]:
    """Return the model's value of every tree's states, before this round, by node id."""
    a, b = calibration
    asked = [
        (i, piece)
        for i, (labelled, own) in enumerate(zip(trees, states, strict=True))
        for piece in pack(labelled.tree, value.limit, value=own, closing=value.network.closing)
    ]
    values: list[dict[int, float]] = [{} for _ in trees]
    for (i, piece), logits in zip(asked, value.numbers([p for _, p in asked], "value"), strict=True):
        judged = torch.sigmoid(a * torch.from_numpy(logits) + b)
        values[i] |= dict(zip(piece.readings["value"].labels.tolist(), judged.tolist(), strict=True))
    return values
