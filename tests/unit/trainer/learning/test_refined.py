"""A refined tree is learned from as it was drawn: answers after their own prompts, each compared with its siblings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ramify.search.params import search_params
from ramify.search.records import Action, Answer, BudgetLimits, Revision, Sampling
from ramify.search.tree import Completion, Node, Tree
from ramify.weights import shipped
from ramify_trainer.learning.batches import collate
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.losses import policy_loss
from ramify_trainer.learning.networks import PolicyNetwork
from ramify_trainer.learning.packing import pack
from ramify_trainer.learning.pieces import value_lessons
from ramify_trainer.learning.prompts import as_judged, by_prompt
from ramify_trainer.learning.targets import policy_targets
from search_worlds import REFINE, ran, words

CONFIG = LearningConfig(kl_beta=0)
PROBLEM = (1, 14, 215, 5, 239, 4)
ASKS = {0: PROBLEM, 1: (*PROBLEM, 18, 9, 4, 7, 7), 3: (*PROBLEM, 20, 4, 7, 7, 7)}
"""The prompt that answers were drawn after, by the node above them."""


def refined() -> LabelledTree:
    """Two answers to the problem; two better the first, one of these is bettered again."""
    tree = Tree(
        prompt_tokens=PROBLEM,
        params=search_params("mcts", action=Action("refine")),
        sampling=Sampling(temperature=0.8),
        seed=0,
    )
    for above, tokens, times in (
        (0, (18, 9, 2), 3),
        (0, (20, 2), 1),
        (1, (7, 2), 1),
        (1, (8, 9, 2), 2),
        (3, (10, 2), 1),
    ):
        parent = tree.nodes[above]
        node = tree.add(
            parent,
            tokens=tokens,
            logprobs=(-0.7,) * len(tokens),
            length=len(tokens),
            multiplicity=times,
            terminal="eos",
            value=0.5,
        )
        tree.completions.append(Completion(node.id, node.id, 10))
    for above in (1, 3):
        tree.nodes[above].revision = Revision("wrong", ASKS[above])
    tree.answer = Answer(4, "", None, 0.5, 1, 1.0)
    return LabelledTree(tree, {1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0, 5: 1.0})


def test_a_part_for_each_prompt_holds_its_answers_token_for_token() -> None:
    labelled = refined()
    parts = by_prompt([labelled])
    assert [part.tree.prompt_tokens for part in parts] == list(ASKS.values())
    assert [[node.tokens for node in part.tree.nodes[1:]] for part in parts] == [
        [(18, 9, 2), (20, 2)],
        [(7, 2), (8, 9, 2)],
        [(10, 2)],
    ]
    assert [part.outcomes for part in parts] == [{1: 0.0, 2: 0.0}, {1: 0.0, 2: 1.0}, {1: 1.0}]
    assert [part.tree.answer and part.tree.answer.node for part in parts] == [None, 2, None]
    assert [part.problem for part in parts] == [None, PROBLEM, PROBLEM]


def test_the_parts_of_a_search_hold_every_node_once_after_the_tokens_that_the_policy_was_given() -> None:
    found = ran(words, action=REFINE, width=3, budget=BudgetLimits(simulations=60))
    tree = found.tree
    parts = by_prompt([LabelledTree(tree, {})])
    drawn = [part.tree.sequence(node) for part in parts for node in part.tree.nodes[1:]]
    assert sorted(drawn) == sorted(tree.sequence(node) for node in tree.nodes[1:])
    assert len(parts) > 3
    assert sum(len(part.tree.completions) for part in parts) == len(tree.completions)


def test_what_was_bettered_often_is_not_imitated_in_place_of_what_is_right() -> None:
    tree = refined().tree
    tree = replace(tree, params=search_params("mcts", action=Action("refine"), grader="verifier"))
    for id_, outcome, visits in ((1, 0.0, 30), (2, 1.0, 1), (3, 0.0, 9), (4, 1.0, 2), (5, 1.0, 1)):
        node = tree.nodes[id_]
        node.outcome, node.visits, node.value_sum = outcome, visits, visits / 2
    part, *_ = by_prompt([LabelledTree(tree, refined().outcomes | {2: 1.0})])
    assert [(node.visits, node.mean) for node in part.tree.nodes[1:]] == [(3, 0.0), (1, 1.0)]
    config = CONFIG.model_copy(update={"objective": "visits", "visit_target": "completed_q"})
    weights = policy_targets(part, config).weights
    assert weights[2] > 0.9


def test_a_part_knows_which_of_its_answers_were_learned_from() -> None:
    parts = by_prompt([replace(refined(), learned=frozenset({0, 1, 2, 3}))])
    assert [part.learned for part in parts] == [{0, 1, 2}, {0, 1}, frozenset()]


def test_other_trees_stay_as_they_are() -> None:
    labelled = LabelledTree(ran(words, budget=BudgetLimits(simulations=5)).tree, {})
    assert by_prompt([labelled]) == [labelled]


def of(part: LabelledTree) -> Iterator[tuple[Node, float, float]]:
    """Each answer of a part with its weight and its advantage: over the mean of all draws after its prompt."""
    total = sum(node.multiplicity for node in part.tree.nodes[1:])
    mean = sum(n.multiplicity * part.outcomes[n.id] for n in part.tree.nodes[1:]) / total
    for node in part.tree.nodes[1:]:
        yield node, float(node.multiplicity), part.outcomes[node.id] - mean


@pytest.mark.parametrize("limit", [2048, None])
def test_the_loss_is_that_of_each_answer_after_its_own_prompt(limit: int | None) -> None:
    config = CONFIG.model_copy(
        update={"baseline": "siblings", "child_weight": "multiplicity", "normalise": False}
    )
    model = AutoModelForCausalLM.from_pretrained(shipped() / "policy", dtype=torch.float32)
    network = PolicyNetwork(model.eval())
    parts = by_prompt([refined()])
    with torch.no_grad():
        pieces = [
            piece for part in parts for piece in pack(part.tree, limit, policy=policy_targets(part, config))
        ]
        batch = collate(pieces, packed=limit is not None)
        outputs = network(batch.tokens, batch.positions, batch.mask, batch.readings)
        places = batch.readings["policy"]
        found = policy_loss(outputs["policy"], outputs["entropy"], None, places.columns, config).totals[
            "weight"
        ]
        expected = sum((alone(network, part, config) for part in parts), torch.zeros(()))
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    assert expected.abs().item() > 0.1


def alone(network: PolicyNetwork, part: LabelledTree, config: LearningConfig) -> Tensor:
    """The loss of a part's answers, each in a sequence of its own through the plain model."""
    total = torch.zeros(())
    for node, weight, advantage in of(part):
        logits = network.model(torch.tensor([part.tree.prompt_tokens + node.tokens])).logits[
            0, -len(node.tokens) - 1 : -1
        ]
        logprobs = torch.log_softmax(logits / 0.8, -1)
        own = logprobs.gather(1, torch.tensor(node.tokens)[:, None])[:, 0]
        ratio = (own - torch.tensor(node.logprobs)).exp().clamp(max=config.ratio_cap)
        clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        total = total - weight * torch.minimum(ratio * advantage, clipped * advantage).sum()
    return total


def test_a_value_model_of_its_own_learns_an_answer_as_one_to_the_problem() -> None:
    parts = by_prompt([refined()])
    assert [as_judged(part).tree.prompt_tokens for part in parts] == [PROBLEM] * 3
    # What answers the request for a better one is no answer to the bare problem, whose prompt learns nothing of it.
    assert [0 in lesson for lesson in value_lessons(parts, CONFIG, apart=True)] == [True, False, False]
    assert [0 in lesson for lesson in value_lessons(parts, CONFIG, apart=False)] == [True, True, True]
