"""Which candidates pass the gate, on scores made for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramify_trainer.config import GateConfig
from ramify_trainer.gate.decision import decide
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.gate.power import promoted_share

PROBLEMS = [f"p{i}" for i in range(200)]


def right(count: int) -> PolicyScores:
    """Greedily right in the first `count` problems, and half of the samples with them."""
    greedy = {name: float(i < count) for i, name in enumerate(PROBLEMS)}
    return PolicyScores(greedy, {name: score / 2 for name, score in greedy.items()})


def passes(candidate: int, incumbent: int, best: int, margin: float = 0.02) -> bool:
    return decide(right(candidate), right(incumbent), right(best), margin, seed=0).promoted


def test_a_clearly_better_candidate_passes_and_a_clearly_worse_one_does_not():
    assert passes(140, 100, 100)
    assert not passes(80, 100, 100)


def test_an_equal_candidate_passes_whatever_the_margin():
    assert passes(100, 100, 100)
    assert passes(100, 100, 100, margin=0.0)


def test_only_harm_that_is_shown_rejects():
    # 6 of 200 problems lost, and half of their samples: 1.5 points worse, and surely more than a fifth of one
    assert not passes(94, 100, 100, margin=0.002)
    assert passes(94, 100, 100, margin=0.01)


def test_a_margin_cannot_ratchet_down():
    # each is within the margin of the one before; against the best so far it is not
    assert passes(92, 98, 98)
    assert not passes(92, 98, 110)


def test_greedy_accuracy_has_a_margin_of_its_own():
    # the samples get better and greedy decoding worse, by 10 points
    sharper = PolicyScores(right(80).greedy, dict.fromkeys(PROBLEMS, 0.9))
    decision = decide(sharper, right(100), right(100), 0.02, seed=0, greedy_margin=0.05)
    assert not decision.promoted
    assert decision.reason.startswith("rejected: at worst greedy -0.100 against the incumbent, at best -0.0")
    assert decision.figures()["mean_against_best"] > 0
    assert decide(sharper, right(100), right(100), 0.02, seed=0, greedy_margin=0.1).promoted


def test_a_difference_within_noise_passes():
    # 5 problems lost and 5 won: no difference, but one that 200 problems cannot tell from -2 points
    moved = {name: float(5 <= i < 105) for i, name in enumerate(PROBLEMS)}
    candidate = PolicyScores(moved, {name: score / 2 for name, score in moved.items()})
    assert decide(candidate, right(100), right(100), 0.0, seed=0, greedy_margin=0.0).promoted


def test_a_margin_of_one_lets_everything_pass():
    assert passes(0, 200, 200, margin=1.0)
    assert not passes(0, 200, 200, margin=0.49)


def test_the_default_gate_promotes_what_is_two_points_better_and_rejects_what_is_six_worse():
    gate = GateConfig()
    assert promoted_share(gate, 0.02, trials=40) >= 0.95
    assert promoted_share(gate, 0.0, trials=40) >= 0.9
    assert promoted_share(gate, -0.06, trials=40) <= 0.1


def test_the_power_that_the_docs_state_is_that_of_the_default_gate():
    page = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    gate = GateConfig()
    stated = f"{gate.problems} problems, {gate.answers} answers, margins {gate.margin:g} and {gate.greedy_margin:g}"
    assert stated in page


def test_other_problems_are_refused():
    other = PolicyScores({"q": 1.0}, {"q": 1.0})
    with pytest.raises(ValueError, match="same problems"):
        decide(other, right(1), right(1), 0.0, seed=0)
