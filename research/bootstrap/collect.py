"""Collection of the value model's samples: answers to many problems, then answers from their unfinished states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from research.bootstrap.config import SamplingConfig
from research.bootstrap.rollouts import Rollouts, legal_states, roll_out
from research.bootstrap.sampling import Sampler
from research.bootstrap.walks import Walks, prompt_tokens

__all__ = ["collect", "planned_answers"]

Counter = Callable[[int], None]
"""Called with the number of answers written since the last call."""


def planned_answers(config: SamplingConfig) -> int:
    """Return about how many answers :func:`collect` writes."""
    return config.problems * config.answers + config.states * config.continuations


def collect(sampler: Sampler, config: SamplingConfig, seed: int, progress: Counter) -> list[Rollouts]:
    """Return graded samples of the policy on problems of the train split, one element a prompt length.

    Problems are drawn as the policy's training text is (so all are solvable). The states
    that are continued are those of the first answers that are still legal, spread evenly over the depths.
    """
    total = sum(config.count_weights.values())
    data: list[Rollouts] = []
    for count, weight in sorted(config.count_weights.items()):
        share = weight / total
        numbers, steps = Walks(count, "train", np.random.default_rng([seed, count])).take(
            round(config.problems * share)
        )
        prompts = prompt_tokens(numbers, steps[:, -1, 3])
        first = merge(_counted(roll_out(sampler, prompts, count, config.answers, config.batch), progress))
        data.append(first)
        depths = range(1, count - 1)
        for depth in depths:
            states = legal_states(first, depth)[: round(config.states * share / len(depths))]
            if len(states):
                more = roll_out(sampler, states, count, config.continuations, config.batch)
                data.append(merge(_counted(more, progress)))
    return data


def _counted(parts: Iterator[Rollouts], progress: Counter) -> Iterator[Rollouts]:
    for part in parts:
        yield part
        progress(part.outcomes.size)


def merge(parts: Iterator[Rollouts]) -> Rollouts:
    """Return rollouts of one prompt length and number count as one."""
    held = list(parts)
    joined: dict[str, NDArray[np.generic]] = {
        name: np.concatenate([getattr(part, name) for part in held])
        for name in ("prompts", "answers", "outcomes")
    }
    return Rollouts(**joined, count=held[0].count)  # type: ignore[arg-type]
