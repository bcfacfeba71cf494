"""A record of engine requests, and the same work again with nothing to wait for: what `ramify bench` compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ramify.search.records import Draw

Kind = Literal["sample", "next", "score"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One call of the policy or the scorer, as the engine saw it."""

    kind: Kind
    prompts: tuple[tuple[int, ...], ...]
    """Token ids: one prompt, or for `score` every sequence of the call."""
    lengths: tuple[int, ...]
    """Tokens that each draw generated; none for `score`."""
    draw: Draw
    """How it was sampled; without meaning for `score`."""
    seeds: tuple[int, ...] = ()
    """`sample`: of each draw, where the engine follows seeds; else none."""
    k: int = 0
    """`next`: tokens asked for."""
    judges: tuple[int, ...] = ()
    """`score`: sequences that each prompt was sent for, itself and those that begin it."""

    @property
    def tokens(self) -> int:
        """Generated tokens."""
        return sum(self.lengths)


@dataclass(slots=True)
class Recorder:
    """Keeps requests while `on`, in the order in which they ended. Aborted and failed ones are left out."""

    on: bool = False
    requests: list[EngineRequest] = field(default_factory=list)

    def add(self, request: EngineRequest) -> None:
        self.requests.append(request)

    def take(self) -> list[EngineRequest]:
        """What was recorded, and forget it."""
        taken, self.requests = self.requests, []
        return taken


@dataclass(frozen=True, slots=True)
class Replay:
    """What the engines needed for the same requests."""

    seconds: float
    requests: int
    generated_tokens: int
    scored_sequences: int
