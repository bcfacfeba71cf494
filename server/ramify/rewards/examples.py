"""One row of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One problem to be asked and judged. Either `prompt` or `messages` is empty."""

    id: str
    """Unique in its data set."""
    prompt: str
    """Text that goes to the model as it is."""
    messages: tuple[Message, ...]
    """A chat that goes through the model's template."""
    task: str
    """Name of the task that judges it, as `registry.task` takes it."""
    problem: Mapping[str, Any]
    """The task's problem; it has been checked."""
    group: str
    """What tables are broken down by, such as `5 numbers`."""
