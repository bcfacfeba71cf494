"""The verdict on an answer: of its task's verifier alone."""

from __future__ import annotations

from ramify.rewards import registry
from ramify.rewards.verifier import Example
from ramify.search.protocols import GradingFailed


async def is_right(example: Example, text: str) -> bool:
    """Tell whether an answer is right; one on which the verifier itself fails counts as wrong."""
    try:
        verdict = await registry.task(example.task, example.problem).grade(text)
    except GradingFailed:
        return False
    return verdict.outcome >= 1.0
