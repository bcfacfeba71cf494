"""Which candidates pass the gate, on scores made for the purpose."""

from __future__ import annotations

import pytest

from ramify_trainer.gating import Measured, decide

PROBLEMS = [f"p{i}" for i in range(200)]


def right(count: int) -> Measured:
    """Greedily right in the first `count` problems, and half of the samples with them."""
    greedy = {name: float(i < count) for i, name in enumerate(PROBLEMS)}
    return Measured(greedy, {name: score / 2 for name, score in greedy.items()})


def passes(candidate: int, incumbent: int, best: int, margin: float = 0.02) -> bool:
    return decide(right(candidate), right(incumbent), right(best), margin, seed=0).promoted


def test_a_clearly_better_candidate_passes_and_a_clearly_worse_one_does_not():
    assert passes(140, 100, 100)
    assert not passes(80, 100, 100)


def test_an_equal_candidate_passes_by_the_margin():
    assert passes(100, 100, 100)
    assert not passes(100, 100, 100, margin=0.0)


def test_a_margin_cannot_ratchet_down():
    # 98 is within the margin of 99, and 99 was within that of 110: against the best so far it is not
    assert passes(99, 99, 99)
    assert not passes(98, 99, 110)


def test_one_figure_that_falls_is_enough_to_reject():
    # the samples get better and greedy decoding worse
    sharper = Measured(right(80).greedy, dict.fromkeys(PROBLEMS, 0.9))
    decision = decide(sharper, right(100), right(100), 0.02, seed=0)
    assert not decision.promoted
    assert decision.reason.startswith("rejected: at worst greedy -0.100 against the incumbent")
    assert decision.figures()["mean_against_best"] > 0


def test_a_difference_within_noise_is_judged_by_its_lower_bound():
    # 5 problems lost and 5 won: no difference, but one that 200 problems cannot tell from -2 points
    moved = {name: float(5 <= i < 105) for i, name in enumerate(PROBLEMS)}
    candidate = Measured(moved, {name: score / 2 for name, score in moved.items()})
    assert not decide(candidate, right(100), right(100), 0.02, seed=0).promoted
    assert decide(candidate, right(100), right(100), 0.05, seed=0).promoted


def test_a_margin_of_one_lets_everything_pass():
    assert passes(0, 200, 200, margin=1.0)
    assert not passes(0, 200, 200, margin=0.99)


def test_other_problems_are_refused():
    other = Measured({"q": 1.0}, {"q": 1.0})
    with pytest.raises(ValueError, match="same problems"):
        decide(other, right(1), right(1), 0.0, seed=0)
