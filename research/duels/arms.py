"""An arm of a duel: a search that is given a problem and a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ramify_client import AsyncClient
from research.duels.engine import Engine

MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one problem may cost: generated tokens, or seconds. Exactly one is given."""

    tokens: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.tokens} tokens" if self.tokens is not None else f"{self.seconds:g} s"

    def room(self, tokens: int, answers: int, seconds: float) -> int:
        """Return how many more answers it pays for, if that many took so many tokens and seconds."""
        if self.seconds is not None:
            return MANY if seconds < self.seconds else 0
        left = max(0, (self.tokens or 0) - tokens)
        return left * answers // tokens if tokens else MANY

    def cost(self, tokens: float, seconds: float) -> float:
        """Return which share of the budget that much is."""
        return seconds / self.seconds if self.seconds is not None else tokens / (self.tokens or 1)


class Arm(Protocol):
    """One search, as it is set up."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        """Return the answer to the engine's problem, having counted its tokens there; `None` for none."""


@dataclass(frozen=True, slots=True)
class Ramify:
    """A search of the server itself."""

    name: str
    search: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `search` beside the budget; none: as the release says."""
    sampling: Mapping[str, Any] = field(default_factory=dict)

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        limit = {"tokens": budget.tokens} if budget.tokens is not None else {"seconds": budget.seconds}
        client: AsyncClient = engine.client
        result = await client.search(
            engine.prompt,
            search={**self.search, "budget": limit},
            sampling=dict(self.sampling) or None,
            train=False,
        )
        engine.tokens += result.usage.completion_tokens
        return result.answer.text if result.answer else None


@dataclass(frozen=True, slots=True)
class Sized:
    """A search that knows no budget, only how many answers it writes side by side; these are chosen to fit one."""

    name: str
    of_size: Callable[[int], Arm]
    unit: int = 1
    """Sizes are multiples of it."""

    def fitted(self, size: int, cost: float) -> int:
        """Return the size whose cost is nearest to the budget, if `size` costs that share of it on average."""
        return max(1, round(size / max(cost, 1e-9) / self.unit)) * self.unit
