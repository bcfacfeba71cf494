"""A value head on the policy's trunk: read in the policy's own pass, and trained with it or alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fakes_training import TREES, with_logprobs_of, with_value_head, write_release
from ramify.weights import HEAD, WeightsError
from ramify_trainer.learning.batches import collate
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.losses import value_loss
from ramify_trainer.learning.networks import TrunkNetwork, load_trunk
from ramify_trainer.learning.packing import Piece, pack
from ramify_trainer.learning.targets import policy_targets, value_targets
from ramify_trainer.learning.value_head import read_head, write_head
from unit.trainer.learning.test_packing import loss_of

CONFIG = LearningConfig(
    value_gradient="trunk",
    steps_per_round=2,
    tokens_per_batch=64,
    kl_beta=0,
    warmup_steps=0,
    threads=1,
    tracker="none",
)
CLOSING = {ord(c) for c in "\n\x00"}


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    release = write_release(tmp_path_factory.mktemp("weights"))
    yield with_value_head(release.policy_path, tmp_path_factory.mktemp("trunk"))
    torch.set_num_threads(threads)


def network(base: Path, **changes: object) -> TrunkNetwork:
    return load_trunk(base / "policy", base / "value" / HEAD, CONFIG.model_copy(update=changes))


def pieces(labelled: LabelledTree, limit: int | None, closing: frozenset[int]) -> list[Piece]:
    policy = policy_targets(labelled, CONFIG)
    return pack(
        labelled.tree,
        limit,
        policy=policy,
        value=value_targets(labelled.tree, labelled.outcomes, 1),
        closing=closing,
    )


def joint_losses(trunk: TrunkNetwork, labelled: LabelledTree, limit: int | None) -> dict[str, Tensor]:
    batch = collate(pieces(labelled, limit, trunk.closing), packed=limit is not None)
    outputs = trunk(batch.tokens, batch.positions, batch.mask, batch.readings)
    value = value_loss(outputs["value"], batch.readings["value"].columns, "bce").totals["weight"]
    return {"policy": loss_of(outputs, batch.readings["policy"]), "value": value}


def judged_by_hand(trunk: TrunkNetwork, sequence: tuple[int, ...]) -> Tensor:
    """The logit of one sequence, of the states that transformers returns."""
    kept = sequence[:-1] if sequence[-1] in CLOSING else sequence
    states = trunk.model(torch.tensor([kept]), output_hidden_states=True).hidden_states[-1]
    return states[0, -1] @ trunk.head.weight[0] + trunk.head.bias[0]


def gradients(trunk: TrunkNetwork, loss: Tensor) -> dict[str, Tensor]:
    trunk.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in trunk.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("limit", [2048, 7, None])
def test_every_node_is_judged_at_the_state_before_what_only_closes_it(base: Path, limit: int | None) -> None:
    trunk, tree = network(base), TREES[0].tree
    assert trunk.closing >= CLOSING
    for piece in pieces(TREES[0], limit, trunk.closing):
        batch = collate([piece], packed=limit is not None)
        logits = trunk(batch.tokens, batch.positions, batch.mask, batch.readings)["value"]
        expected = [
            judged_by_hand(trunk, tree.sequence(tree.nodes[i]))
            for i in batch.readings["value"].labels.tolist()
        ]
        torch.testing.assert_close(logits, torch.stack(expected), rtol=1e-5, atol=1e-5)
        alone = trunk(batch.tokens, batch.positions, batch.mask, {"value": batch.readings["value"]})
        torch.testing.assert_close(alone["value"], logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [2048, 7, None])
def test_a_packed_tree_has_the_value_loss_and_the_gradients_of_its_paths(
    base: Path, limit: int | None
) -> None:
    trunk, tree = network(base), TREES[0].tree
    targets = value_targets(tree, TREES[0].outcomes, 1)
    logits = torch.stack([judged_by_hand(trunk, tree.sequence(tree.nodes[i])) for i in targets])
    target, weight = (torch.tensor(column) for column in zip(*targets.values(), strict=True))
    by_hand = value_loss(logits, {"target": target, "weight": weight}, "bce").totals["weight"]
    packed = joint_losses(trunk, TREES[0], limit)["value"]
    torch.testing.assert_close(packed, by_hand, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(trunk, packed), gradients(trunk, by_hand)
    assert theirs.keys() <= ours.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5)


def test_the_value_moves_the_trunk_or_the_head_alone(base: Path) -> None:
    (tree,) = with_logprobs_of(base / "policy", TREES[:1])
    found = {}
    for setting in ("trunk", "head"):
        trunk = network(base, value_gradient=setting)
        losses = joint_losses(trunk, tree, 2048)
        policy = gradients(trunk, losses["policy"])
        both = gradients(trunk, sum(joint_losses(trunk, tree, 2048).values(), torch.zeros(())))
        assert both["head.weight"].abs().sum() > 0.01
        moved = {name for name in policy if not torch.allclose(both[name], policy[name], atol=1e-6)}
        found[setting] = {name.split(".")[0] for name in moved}
    assert found == {"trunk": {"model"}, "head": set()}


@pytest.mark.parametrize(
    ("setting", "moved"),
    [
        ({"train_policy": False}, {"value"}),
        ({"train_policy": False, "value_gradient": "head"}, {"value"}),
        ({"train_value": False}, {"policy"}),
        ({}, {"policy", "value"}),
    ],
    ids=["value alone", "value alone, detached", "policy alone", "both"],
)
def test_what_is_not_trained_stays_as_it_is(
    base: Path, tmp_path: Path, setting: dict[str, object], moved: set[str]
) -> None:
    learner = Learner.start(
        CONFIG.model_copy(update=setting), base / "policy", base / "value", base / "policy", seed=3
    )
    figures = learner.round(TREES, seed=1).figures()
    learner.export(tmp_path, base)
    files = {"policy": "model.safetensors", "value": HEAD}
    changed = {
        part
        for part, name in files.items()
        if any(
            not torch.equal(tensor, load_file(base / part / name)[key])
            for key, tensor in load_file(tmp_path / part / name).items()
        )
    }
    assert changed == moved
    assert {part for part in files if f"{part}/grad_norm" in figures} == moved


def test_trees_that_serve_the_value_alone_leave_the_policy_s_loss_without_weight(base: Path) -> None:
    stale = [LabelledTree(one.tree, one.outcomes, staleness=100) for one in TREES[:4]]
    learner = Learner.start(CONFIG, base / "policy", base / "value", base / "policy", seed=3)
    metrics = learner.round(stale, seed=1)
    assert (metrics.steps, metrics.refused, metrics.policy) == (2, {"stale": 4}, {})
    assert metrics.value["loss"] > 0


def test_a_head_of_another_trunk_or_with_numbers_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1, 8), "bias": torch.ones(1)}, tmp_path / HEAD)
    with pytest.raises(WeightsError, match=r"F32 weight \[1, 16\] and F32 bias \[1\] are needed"):
        read_head(tmp_path / HEAD, 16)
    with pytest.raises(ValueError, match="the head's weight holds numbers that are not finite"):
        write_head(tmp_path / "value", {"weight": torch.full((1, 8), torch.inf), "bias": torch.ones(1)})
