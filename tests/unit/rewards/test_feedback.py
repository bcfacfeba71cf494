"""Feedback of tasks: made of what the prompt states, and of a verdict only if the search has one."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.rewards import registry
from ramify.rewards.verifier import checked_feedback
from ramify.search.protocols import GradingFailed

COUNTDOWN = registry.check("countdown", {"numbers": [3, 5, 7], "target": 15})
SECRET = "a secret city"


def judged_by(name: str) -> Any:
    entry = {"answer": "8191", "metadata": {"the answer": "8191"}}
    problems = {
        "exact": {"answer": SECRET},
        "math": {"answer": "8191"},
        "reasoning-gym": {"dataset": "gcd", "entry": entry},
    }
    return registry.check(name, problems[name])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5 + 3 = 9\n", "line 1, `5 + 3 = 9`: the result is 8"),
        ("5 + 3 = 8\n8 + 7 = 15\n", "correct"),
        ("5 + 3 = 8\n", "2 numbers are left"),
        ("5 * 3 = 15\n15 - 7 = 8\n", "the result is 8, not 15"),
    ],
)
def test_countdown_tells_which_rule_is_broken_with_or_without_a_verdict(text: str, says: str) -> None:
    assert says in COUNTDOWN.feedback(text, None)
    assert COUNTDOWN.feedback(text, None) == COUNTDOWN.feedback(text, 0.0)
    assert not COUNTDOWN.feedback_needs_outcome


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exact", "Answer: Paris"),
        ("math", "The answer is \\boxed{12}"),
        ("reasoning-gym", "<answer>12</answer>"),
    ],
)
def test_a_task_with_a_reference_never_tells_it(name: str, text: str) -> None:
    verifier = judged_by(name)
    assert verifier.feedback_needs_outcome
    said = verifier.feedback(text, 0.0)
    assert said.endswith("is not right")
    assert "secret" not in said
    assert "8191" not in said
    assert verifier.feedback("", 0.0) == "no answer was found in the text"
    with pytest.raises(GradingFailed, match="without the verifier's verdict"):
        verifier.feedback(text, None)


def test_every_task_that_gives_feedback_is_named() -> None:
    assert set(registry.with_feedback()) >= {"code", "countdown", "exact", "math", "reasoning-gym"}
    assert "none" not in registry.with_feedback()
    with pytest.raises(GradingFailed, match="gives no feedback"):
        registry.check("none", {}).feedback("x", None)


def test_feedback_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="feedback returned float"):
        checked_feedback(0.5)
