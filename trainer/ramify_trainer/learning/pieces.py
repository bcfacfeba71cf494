"""A round's trees as packed pieces: what policy and value model are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from ramify_trainer.learning.advantages import champion
from ramify_trainer.learning.batches import Batch
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree, policy_refusal, refusal
from ramify_trainer.learning.losses import token_logprobs
from ramify_trainer.learning.networks import Reader
from ramify_trainer.learning.packing import Piece, pack_policy, pack_values
from ramify_trainer.learning.targets import policy_targets, value_targets

__all__ = ["policy_pieces", "value_pieces"]


def policy_pieces(
    trees: Sequence[LabelledTree],
    config: LearningConfig,
    policy: Reader,
    value: Reader,
    calibration: tuple[float, float],
    reference: Reader | None,
) -> list[Piece]:
    """Return the pieces of the trees that may serve `policy`; if there is a reference policy, its log-probs are the
    column `reference`. `value` judges the champion paths of `path_ppo`."""
    fit = [tree for tree in trees if policy_refusal(tree, config) is None]
    values: Sequence[Mapping[int, float]] = [{}] * len(fit)
    if config.objective == "path_ppo":
        values = _champion_values(fit, config, value, calibration)
    known: set[tuple[int, ...]] = set()
    pieces: list[Piece] = []
    for labelled, own in zip(fit, values, strict=True):
        targets = policy_targets(labelled, config, known, own)
        pieces += pack_policy(labelled.tree, targets, policy.limit)
    return pieces if reference is None else _with_reference(pieces, reference)


def value_pieces(trees: Sequence[LabelledTree], config: LearningConfig, value: Reader) -> list[Piece]:
    """Return the pieces of the trees that may serve `value`."""
    pieces: list[Piece] = []
    for labelled in trees:
        if refusal(labelled) is None:
            targets = value_targets(labelled.tree, labelled.outcomes, config.lambda_return)
            pieces += pack_values(labelled.tree, targets, value.limit)
    return pieces


def _champion_values(
    trees: Sequence[LabelledTree], config: LearningConfig, value: Reader, calibration: tuple[float, float]
) -> list[dict[int, float]]:
    """Return the value model's estimates along each tree's champion path, before this round, by node id."""
    a, b = calibration
    asked: list[tuple[int, Piece]] = []
    for i, labelled in enumerate(trees):
        states = {node.id: (0.0, 1.0) for node in champion(labelled.tree)[:-1]}
        asked += [(i, piece) for piece in pack_values(labelled.tree, states, value.limit)]
    values: list[dict[int, float]] = [{} for _ in trees]
    outputs = value.outputs([piece for _, piece in asked], lambda logits, _: (a * logits + b).sigmoid())
    for (i, piece), judged in zip(asked, outputs, strict=True):
        values[i] |= dict(zip(piece.labels.tolist(), judged.tolist(), strict=True))
    return values


def _with_reference(pieces: Sequence[Piece], reference: Reader) -> list[Piece]:
    def logprobs(logits: Tensor, batch: Batch) -> Tensor:
        return token_logprobs(logits, batch.labels, batch.columns["temperature"], False)[0]

    return [
        replace(piece, columns={**piece.columns, "reference": column})
        for piece, column in zip(pieces, reference.outputs(pieces, logprobs), strict=True)
    ]
