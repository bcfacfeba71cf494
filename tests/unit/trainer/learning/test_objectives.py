"""Objectives that mix: what each tree teaches, and the loss and gradient of it, against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM

from fakes_training import TREES, drawn_tree, with_logprobs_of, write_release
from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Node, Tree
from ramify_trainer.learning.batches import collate
from ramify_trainer.learning.config import Figure, LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.losses import policy_loss
from ramify_trainer.learning.metrics import draw_figures, pass_at_k
from ramify_trainer.learning.networks import PolicyNetwork
from ramify_trainer.learning.packing import pack
from ramify_trainer.learning.pieces import packed_trees, policy_lessons
from ramify_trainer.learning.targets import imitated, improved_policy, policy_targets, right_answers
from ramify_trainer.learning.trainee import Trainee

MIX = LearningConfig(
    objective="tree_ppo",
    imitate=0.7,
    entropy=0.05,
    kl_beta=0,
    train_value=False,
    steps_per_round=3,
    tokens_per_batch=24,
    policy_learning_rate=1e-2,
    warmup_steps=0,
    threads=1,
    tracker="none",
)


def mixed(**changes: object) -> LearningConfig:
    return LearningConfig.model_validate({**MIX.model_dump(), **changes})


def flat_tree(i: int, *outcomes: float, prompt: tuple[int, ...] = (63, 10)) -> LabelledTree:
    """Answers that share nothing but the prompt, each of one token of its own."""
    tree = Tree(prompt_tokens=prompt, params=search_params("best_of_n"), sampling=Sampling(), seed=i)
    for j in range(len(outcomes)):
        tree.add(tree.root, tokens=(80 + i + j, 0), logprobs=(-4.5, -4.0), length=2, terminal="eos")
    return LabelledTree(tree, dict(enumerate(outcomes, 1)))


@pytest.fixture(scope="module", name="base")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    yield write_release(tmp_path_factory.mktemp("weights")).path
    torch.set_num_threads(threads)


def started(base: Path, config: LearningConfig) -> Learner:
    return Learner.start(config, base / "policy", base / "value", base / "policy", seed=3)


def policy_of(learner: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.policy.parameters()])


# What is imitated


def test_an_answer_counts_once_and_a_problem_as_much_as_another():
    easy, again = flat_tree(0, 1.0, 1.0, 0.0), flat_tree(1, 1.0, 1.0)  # they share the answer (81, 0)
    hard = flat_tree(0, 0.0, 1.0, prompt=(64, 10))
    trees = [easy, again, hard]
    ends = right_answers(trees, 1.0)
    assert [[leaf.id for leaf in own] for own in ends] == [[1, 2], [2], [2]]
    assert imitated(trees, ends, MIX) == [{1: 1 / 3, 2: 1 / 3}, {2: 1 / 3}, {2: 1.0}]
    assert imitated(trees, ends, mixed(answer_weight="one")) == [{1: 1.0, 2: 1.0}, {2: 1.0}, {2: 1.0}]


def test_a_shared_step_weighs_what_the_answers_through_it_weigh():
    tree = drawn_tree(0)
    both = replace(tree, outcomes={3: 1.0, 4: 1.0, 5: 0.0})
    assert imitated([both], right_answers([both], 1.0), mixed(answer_weight="one")) == [
        {1: 2.0, 3: 1.0, 4: 1.0}
    ]


def test_what_may_not_be_trained_on_is_not_imitated():
    forbidden = flat_tree(0, 1.0)
    forbidden.tree.train = False
    assert right_answers([forbidden], 1.0) == [[]]


def test_trees_that_the_ratio_objectives_refuse_are_imitated_all_the_same(base: Path):
    stale = [replace(tree, staleness=9) for tree in TREES]
    assert started(base, mixed(imitate=0)).round(stale, seed=1).steps == 0
    result = started(base, MIX).round(stale, seed=1)
    assert (result.steps, result.refused) == (3, {"stale": 8})
    assert set(result.policy) == {"imitated_loss", "imitated_tokens", "grad_norm"}


def test_an_objective_that_imitates_has_no_imitation_beside_it():
    with pytest.raises(ValidationError, match=r'imitate is 0\.7, and objective "sft" imitates already'):
        mixed(objective="sft")


# The mixture's gradient


def plain_loss(model: torch.nn.Module, trees: Sequence[LabelledTree], config: LearningConfig) -> Tensor:
    """PPO - entropy bonus, divided by its weights; α·(-log π), divided by its own: path by path, by the formula."""
    ends = right_answers(trees, 1.0)
    right = imitated(trees, ends, config)
    ppo, weights, sft, counts = [torch.zeros(()) for _ in range(4)]
    for labelled, own in zip(trees, right, strict=True):
        targets = policy_targets(labelled, config)
        for node in labelled.tree.nodes[1:]:
            sequence = torch.tensor([labelled.tree.sequence(node)])
            every = model(sequence).logits[0, -len(node.tokens) - 1 : -1].log_softmax(-1)
            logprobs = every.gather(1, torch.tensor(node.tokens)[:, None])[:, 0]
            entropy = -(every.exp() * every).sum(-1)
            weight = targets.weights.get(node.id, 0.0)
            advantage = targets.advantages.get(node.id, 0.0)
            ratio = (logprobs - torch.tensor(node.logprobs)).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
            ppo = ppo - weight * (surrogate + config.entropy * entropy).sum()
            weights = weights + weight * len(node.tokens)
            sft = sft - own.get(node.id, 0.0) * logprobs.sum()
            counts = counts + own.get(node.id, 0.0) * len(node.tokens)
    return ppo / weights + config.imitate * sft / counts


@pytest.mark.parametrize("limit", [2048, 14, None], ids=["packed", "split", "paths"])
def test_the_gradient_of_the_mixture_is_that_of_its_formula(base: Path, limit: int | None):
    trees = [*with_logprobs_of(base / "policy", TREES[:2]), flat_tree(0, 1.0, 1.0), flat_tree(3, 0.0, 0.0)]
    model = AutoModelForCausalLM.from_pretrained(base / "policy", dtype=torch.float32).eval()
    trainee = Trainee(PolicyNetwork(model), mixed(max_pack_tokens=limit or 1), Accelerator())
    trainee.packs = limit is not None
    pieces = packed_trees(trees, trainee, policy_lessons(trees, MIX, None, (1, 0)).targets, None)
    batch = collate(pieces, trainee.packs)
    outputs, columns = trainee.read(batch), batch.readings["policy"].columns
    found = policy_loss(outputs["policy"], outputs["entropy"], None, columns, MIX)
    losses = [trainee._whole_loss({"policy": found}, pieces), plain_loss(model, trees, MIX)]
    gradients = [torch.autograd.grad(loss, [*model.parameters()]) for loss in losses]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_alpha_means_the_same_whatever_else_a_step_holds():
    logprobs = torch.tensor([-1.0, -2.0, -3.0])
    columns = {
        "weight": torch.ones(3),
        "advantage": torch.ones(3),
        "logprob": logprobs,
        "imitated": torch.tensor([0.0, 0.5, 0.25]),
    }
    loss = policy_loss(logprobs, torch.zeros(3), None, columns, mixed(imitate=2.0))
    assert loss.totals["imitated"] / loss.sums["imitated"] == pytest.approx(2 * (0.5 * 2 + 0.25 * 3) / 0.75)


def test_passes_and_accumulation_change_memory_alone(base: Path):
    trees = with_logprobs_of(base / "policy", TREES)
    weights = [
        policy_of(learner)
        for learner in (
            started(base, mixed(fill="signal", tokens_per_batch=48, accumulation=n)) for n in (1, 4)
        )
        if learner.round(trees, seed=1).steps
    ]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-4)


def test_cispo_weighs_every_token_by_its_ratio_up_to_the_cap():
    logprobs = torch.tensor([math.log(0.1), 0.0, math.log(3.0), math.log(9.0)], requires_grad=True)
    columns = {
        "weight": torch.ones(4),
        "advantage": torch.tensor([-1.0, 1.0, 1.0, -1.0]),
        "logprob": torch.zeros(4),
    }
    loss = policy_loss(logprobs, torch.zeros(4), None, columns, mixed(ratio="cispo", imitate=0, entropy=0))
    (gradient,) = torch.autograd.grad(loss.totals["weight"], logprobs)
    torch.testing.assert_close(gradient, torch.tensor([0.1, -1.0, -3.0, 5.0]))
    assert loss.sums["clipped"].item() == 0
    assert loss.sums["truncated"].item() == 1


# Trees without signal, and what a step is filled with


@pytest.mark.parametrize("outcome", [0.0, 1.0, 0.3], ids=["all wrong", "all right", "all alike"])
def test_a_tree_whose_answers_are_all_alike_teaches_nothing(outcome: float):
    assert policy_targets(flat_tree(0, *[outcome] * 5), MIX).weights == {}
    assert policy_targets(replace(TREES[0], outcomes=dict.fromkeys((3, 4, 5), outcome)), MIX).weights == {}


def test_trees_without_signal_do_not_fill_a_step(base: Path):
    dull = [flat_tree(i, 0.0, 0.0) for i in range(0, 30, 3)]
    alone, beside = (started(base, MIX) for _ in range(2))
    figures = [alone.round(TREES, seed=1), beside.round(dull + TREES, seed=1)]
    assert [one.lessons["dropped_share"] for one in figures] == [0.0, pytest.approx(10 / 18)]
    assert figures[0].policy == figures[1].policy
    assert torch.equal(policy_of(alone), policy_of(beside))
    assert started(base, MIX).round(dull, seed=1).steps == 0


def test_the_signal_of_a_piece_are_the_tokens_that_teach():
    labelled = flat_tree(0, 1.0, 0.0)
    targets = replace(policy_targets(labelled, MIX), imitated={1: 1.0})
    (piece,) = pack(labelled.tree, 2048, policy=targets)
    assert (len(piece), piece.signal) == (6, 4)
    one = replace(targets, weights={}, advantages={})
    (piece,) = pack(labelled.tree, 2048, policy=one)
    assert (len(piece), piece.signal) == (4, 2)


def test_a_step_that_is_filled_by_signal_holds_more_trees(base: Path):
    tokens, signal = (
        started(base, mixed(imitate=0, fill=fill, steps_per_round=100, epochs=1)).round(TREES, seed=1).steps
        for fill in ("tokens", "signal")
    )
    assert signal < tokens


# Wrong answers that are left out


def test_of_wrong_answers_a_share_is_learned_from_and_of_right_ones_all():
    labelled = flat_tree(0, 1.0, *[0.0] * 399)
    targets = policy_targets(labelled, mixed(negatives=0.25), seed=(1, 0))
    assert 1 in targets.weights
    assert 60 < len(targets.weights) - 1 < 140
    assert targets == policy_targets(labelled, mixed(negatives=0.25), seed=(1, 0))
    assert targets != policy_targets(labelled, mixed(negatives=0.25), seed=(2, 0))
    assert {i: targets.advantages[i] for i in targets.weights} == targets.advantages


def test_without_wrong_answers_what_leads_to_right_ones_is_left():
    labelled = TREES[0]
    everything = policy_targets(labelled, MIX)
    targets = policy_targets(labelled, mixed(negatives=0.0), seed=(1, 0))
    assert set(targets.weights) == {1, 3}
    assert targets.advantages == {i: everything.advantages[i] for i in (1, 3)}


# Gumbel MuZero's improved policy


def siblings(*draws: int, value: float | None = None, visits: int = 0) -> tuple[Node, list[Node]]:
    tree = Tree(prompt_tokens=(1,), params=search_params("mcts"), sampling=Sampling(), seed=0)
    tree.root.value = value
    children = [
        tree.add(tree.root, tokens=(i,), logprobs=(-1.0,), length=1, multiplicity=m, visits=visits)
        for i, m in enumerate(draws)
    ]
    return tree.root, children


def test_the_improved_policy_by_hand():
    root, children = siblings(3, 1, visits=2)
    found = improved_policy(root, children, {1: 0.5, 2: 1.0}, 8, 0.1)
    scores = [3 * math.exp(0.5), 1 * math.exp(1.0)]  # σ = (8 + 2)·0.1 = 1
    assert found == pytest.approx({i: s / sum(scores) for i, s in enumerate(scores, 1)})


def test_a_child_of_which_nothing_is_known_has_the_mixed_value():
    root, children = siblings(3, 1, 1, value=0.2, visits=2)
    found = improved_policy(root, children, {1: 0.5, 2: 1.0}, 8, 0.1)
    by_share = (3 * 0.5 + 1.0) / 4
    mixed_value = (0.2 + 4 * by_share) / 5
    scores = [3 * math.exp(0.5), math.exp(1.0), math.exp(mixed_value)]
    assert found == pytest.approx({i: s / sum(scores) for i, s in enumerate(scores, 1)})


def test_values_that_say_nothing_give_nothing_to_imitate():
    root, children = siblings(3, 1, visits=2)
    assert improved_policy(root, children, {}, 50, 0.1) == {}
    assert improved_policy(root, children, {1: 0.5, 2: 0.5}, 50, 0.1) == {}
    assert improved_policy(root, children, {1: 0.5}, 50, 0.1) == {}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=2, max_size=6))
def test_the_improved_policy_is_a_distribution_that_prefers_what_is_worth_more(
    drawn: list[tuple[int, float]],
):
    root, children = siblings(*(m for m, _ in drawn), visits=1)
    values = {c.id: q for c, (_, q) in zip(children, drawn, strict=True)}
    found = improved_policy(root, children, values, 50, 0.1)
    if found:
        assert sum(found.values()) == pytest.approx(1)
        gain = {c.id: found[c.id] / c.multiplicity for c in children}
        assert max(gain.values()) == pytest.approx(gain[max(values, key=lambda i: values[i])])


def test_completed_q_is_of_outcomes_and_visits_are_of_the_search():
    labelled = TREES[0]
    for node in labelled.tree.nodes:
        node.visits, node.value_sum = 2, 2 * 0.9  # the search thought well of everything
    config = mixed(objective="visits", visit_target="completed_q", imitate=0)
    weights = policy_targets(labelled, config).weights
    assert weights[1] > 0.9  # a right answer is below
    assert weights[3] > 0.9
    assert policy_targets(labelled, mixed(objective="visits", imitate=0)).weights == dict.fromkeys(
        range(1, 5), 0.5
    )


# Figures


def test_a_round_has_every_figure_that_a_phase_or_an_alert_may_wait_for(base: Path):
    figures = started(base, mixed(kl_beta=0.1)).round(TREES, seed=1).figures()
    assert {name for name in get_args(Figure) if "/" in name and not name.startswith("gate/")} <= set(figures)


def test_pass_at_k_is_the_chance_that_one_of_k_is_right():
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at_k(4, 1, 2) == pytest.approx(1 / 2)
    assert pass_at_k(4, 2, 3) == 1.0
    assert pass_at_k(2, 1, 8) == 1.0
    assert pass_at_k(2, 0, 8) == 0.0


def test_the_figures_of_what_was_drawn():
    found = draw_figures([flat_tree(0, 1.0, 0.0), flat_tree(0, 0.0, 0.0, 0.0), flat_tree(0)], 1.0)
    assert found == pytest.approx({"entropy": 4.25, "pass_at_1": 0.25, "pass_at_8": 0.5})
    assert draw_figures([], 1.0) == {}
