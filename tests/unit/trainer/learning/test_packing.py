"""A packed tree gives the losses and gradients of its paths read one by one, at a fraction of the tokens."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify.weights import shipped
from ramify_trainer.learning.advantages import gae, tree_advantages
from ramify_trainer.learning.batches import Places, collate
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree, policy_refusal
from ramify_trainer.learning.losses import policy_loss
from ramify_trainer.learning.networks import PolicyNetwork
from ramify_trainer.learning.packing import pack
from ramify_trainer.learning.returns import lambda_returns, tree_values
from ramify_trainer.learning.targets import policy_targets

CONFIG = LearningConfig(kl_beta=0)


def grown(**sampling: float) -> LabelledTree:
    """The prompt, two first steps (the first drawn three times), and answers below them, one of which nobody judged."""
    settings = Sampling(**sampling)  # type: ignore[arg-type]
    tree = Tree(
        prompt_tokens=(1, 14, 215, 5, 239, 4), params=search_params("mcts"), sampling=settings, seed=0
    )
    a = tree.add(
        tree.root, tokens=(18, 9, 4), logprobs=(-1.0, -0.5, -0.1), length=3, multiplicity=3, value=0.6
    )
    b = tree.add(tree.root, tokens=(20, 4), logprobs=(-2.0, -0.3), length=2, value=0.2)
    for parent, tokens, m in ((a, (7, 2), 1), (a, (8, 9, 2), 1), (a, (10, 2), 1), (b, (11, 2), 1)):
        tree.add(
            parent,
            tokens=tokens,
            logprobs=(-0.7,) * len(tokens),
            length=parent.length + len(tokens),
            multiplicity=m,
            terminal="eos",
        )
    return LabelledTree(tree, {3: 1.0, 4: 0.0, 6: 0.0})


@pytest.fixture(scope="module", name="network")
def _network() -> PolicyNetwork:
    model = AutoModelForCausalLM.from_pretrained(shipped() / "policy", dtype=torch.float32)
    return PolicyNetwork(model.eval())


def packed_loss(network: PolicyNetwork, labelled: LabelledTree, limit: int | None) -> Tensor:
    targets = policy_targets(labelled, CONFIG)
    batch = collate(pack(labelled.tree, limit, policy=targets), packed=limit is not None)
    return loss_of(
        network(batch.tokens, batch.positions, batch.mask, batch.readings), batch.readings["policy"]
    )


def loss_of(outputs: Mapping[str, Tensor], places: Places) -> Tensor:
    return policy_loss(outputs["policy"], outputs["entropy"], None, places.columns, CONFIG).totals["weight"]


def unpacked_loss(network: PolicyNetwork, labelled: LabelledTree) -> Tensor:
    """Each node's tokens in its own path's whole sequence, through the plain model."""
    tree, targets = labelled.tree, policy_targets(labelled, CONFIG)
    total = torch.zeros(())
    for i, weight in targets.weights.items():
        node, sequence = tree.nodes[i], torch.tensor([tree.sequence(tree.nodes[i])])
        logits = network.model(sequence).logits[0, -len(node.tokens) - 1 : -1]
        logprobs = torch.log_softmax(logits / tree.sampling.temperature, -1)
        own = logprobs.gather(1, torch.tensor(node.tokens)[:, None])[:, 0]
        ratio = (own - torch.tensor(node.logprobs)).exp().clamp(max=CONFIG.ratio_cap)
        clipped = ratio.clamp(1 - CONFIG.clip_low, 1 + CONFIG.clip_high)
        a = targets.advantages[i]
        total = total - weight * torch.minimum(ratio * a, clipped * a).sum()
    return total


@pytest.mark.parametrize("limit", [2048, 14, None])
def test_a_packed_tree_has_the_loss_and_the_gradients_of_its_paths(
    network: PolicyNetwork, limit: int | None
) -> None:
    losses, gradients = [], []
    for loss in (
        packed_loss(network, grown(temperature=0.8), limit),
        unpacked_loss(network, grown(temperature=0.8)),
    ):
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_shared_prefixes_are_computed_once() -> None:
    labelled = grown()
    (piece,) = pack(labelled.tree, 2048, policy=policy_targets(labelled, CONFIG))
    apart = sum(len(labelled.tree.sequence(leaf)) for leaf in labelled.tree.leaves() if leaf.id in (3, 4, 6))
    assert (len(piece), apart) == (18, 33)


def test_values_are_means_by_multiplicity_and_unlabelled_answers_are_left_out() -> None:
    labelled = grown()
    values = tree_values(labelled.tree, labelled.outcomes)
    assert values == {3: 1.0, 4: 0.0, 6: 0.0, 1: 0.5, 2: 0.0, 0: pytest.approx(0.375)}
    assert 5 not in lambda_returns(labelled.tree, labelled.outcomes, 0.5)
    assert tree_advantages(labelled.tree, values)[1] == pytest.approx(0.125)


def test_draws_without_replacement_weigh_what_they_stand_for() -> None:
    """The first step of two distinct ones stands for 1.5 of two draws, not for the three of its multiplicity."""
    labelled = grown()
    tree = labelled.tree
    tree.nodes[1].stands_for, tree.nodes[2].stands_for = 1.5, 0.5
    values = tree_values(tree, labelled.outcomes)
    assert values[0] == pytest.approx((1.5 * 0.5 + 0.5 * 0.0) / 2)
    by_draws = CONFIG.model_copy(update={"child_weight": "multiplicity"})
    weights = policy_targets(labelled, by_draws).weights
    assert (weights[1], weights[2]) == (1.5, 0.5)


def test_a_baseline_leaves_out_no_more_of_a_draw_than_it_stands_for() -> None:
    """One of three distinct draws stands for most: what the others are compared with stays a mean of outcomes."""
    tree = grown().tree
    step = tree.nodes[1]
    for child, stands_for in zip(tree.children(step), (2.7, 0.15, 0.15), strict=True):
        child.stands_for = stands_for
    values = {3: 0.0, 4: 1.0, 5: 0.0, 1: 0.05, 2: 0.0, 0: 0.05}
    found = tree_advantages(tree, values, "ancestors")
    assert [values[i] - found[i] for i in (3, 4, 5)] == pytest.approx(
        [(0.0 + 0.15) / 3, 0.0, 0.15 / (1 + 3 - 0.15)], abs=0.02
    )
    assert all(0 <= values[i] - found[i] <= 1 for i in found)


def test_a_lambda_return_mixes_the_model_s_value_in() -> None:
    labelled = grown()
    found = lambda_returns(labelled.tree, labelled.outcomes, 0.5)
    assert found[0] == pytest.approx((3 * (0.5 * 0.6 + 0.5 * 0.5) + 0.5 * 0.2 + 0.5 * 0.0) / 4)


def test_a_generalised_advantage_by_hand() -> None:
    assert gae([0.5, 0.75], 1.0, 0.5) == pytest.approx([0.25 + 0.5 * 0.25, 0.25])


@pytest.mark.parametrize(
    ("sampling", "staleness", "reason"),
    [
        ({}, 0, None),
        ({}, 5, "stale"),
        ({"temperature": 0.0}, 0, "greedy"),
        ({"top_p": 0.9}, 0, "truncated_sampling"),
        ({"top_k": 5}, 0, "truncated_sampling"),
    ],
)
def test_ratio_objectives_refuse_what_was_not_drawn_from_the_policy_or_long_ago(
    sampling: dict[str, float], staleness: int, reason: str | None
) -> None:
    labelled = grown(**sampling)
    asked = LabelledTree(labelled.tree, labelled.outcomes, staleness)
    assert policy_refusal(asked, CONFIG) == reason
    assert policy_refusal(asked, LearningConfig(objective="sft")) is None


def test_visits_that_the_policys_confidence_has_led_are_not_imitated() -> None:
    labelled = grown()
    tree = replace(labelled.tree, params=replace(labelled.tree.params, grader="confidence"))
    asked = LabelledTree(tree, labelled.outcomes)
    assert policy_refusal(asked, LearningConfig(objective="visits")) == "confidence"
    assert policy_refusal(asked, CONFIG) is None


def test_the_clip_stops_a_token_that_has_moved_far_enough() -> None:
    logprobs = torch.tensor([math.log(1.5), math.log(1.5), 0.0], requires_grad=True)
    columns = {
        "weight": torch.ones(3),
        "advantage": torch.tensor([1.0, -1.0, 1.0]),
        "logprob": torch.zeros(3),
    }
    loss = policy_loss(logprobs, torch.zeros(3), None, columns, CONFIG)
    (gradient,) = torch.autograd.grad(loss.totals["weight"], logprobs)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 1.5, -1.0]))
    assert loss.sums["clipped"].item() == 1
