"""The problems of a run, numbered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ramify.rewards.datasets import load
from ramify.rewards.verifier import Message


@dataclass(frozen=True, slots=True)
class Problem:
    """One example of a data set, at its place in the run."""

    index: int
    """From 0; rows name problems by it."""
    id: str
    """Its name in the data set."""
    prompt: str
    messages: tuple[Message, ...]
    """A chat in place of `prompt`, which is then empty."""
    task: str
    problem: Mapping[str, Any]
    """What the task's verifier is told."""
    group: str
    """What results are broken down by."""


def problems(data: str, count: int, seed: int) -> list[Problem]:
    """The first `count` examples of a data set such as ``countdown:test?numbers=5,6``, the same for the same arguments.

    Raises `ramify.rewards.errors.BadDataset`.
    """
    return [
        Problem(i, example.id, example.prompt, example.messages, example.task, example.problem, example.group)
        for i, example in enumerate(load(data, count, seed))
    ]
