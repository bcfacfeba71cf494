"""Beam search and particle filtering of its_hub: a language model that writes steps, a process reward that judges them.

Both algorithms run to the end of every answer, whatever that costs; their size is chosen to fit a budget on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from research.duels.arms import Budget, Sized
from research.duels.engine import DELIMITER, Draft, Engine

BEAM_WIDTH = 4
STEPS = 8
"""Longest answer in steps; those of six numbers have five."""


@dataclass(slots=True)
class Models:
    """The language model and the process reward model that the library asks, for one problem."""

    engine: Engine
    drafts: dict[str, Draft] = field(default_factory=dict)
    """Drafts that were written, by their text without the end token: the library keeps texts."""

    async def agenerate(self, messages: Sequence[Sequence[Any]], **_: Any) -> list[dict[str, str]]:
        """Write the next step of each conversation: the prompt, and the answer so far if there is any."""
        before = ["".join(message.content for message in one[1:]) for one in messages]
        written = await self.engine.steps(before)
        self.drafts |= {draft.text: draft for draft in written}
        return [
            {
                "role": "assistant",
                "content": draft.text[len(text) :] + (self.engine.end if draft.finished else ""),
            }
            for text, draft in zip(before, written, strict=True)
        ]

    async def ascore(self, prompt: str, answers: Sequence[str]) -> list[float]:
        """Judge answers so far, each without its end token."""
        return await self.engine.values([self.drafts[answer] for answer in answers])


@dataclass(frozen=True, slots=True)
class ItsHub:
    """An algorithm of its_hub with `size` candidates."""

    name: str
    make: Callable[[Models], Any]
    size: int

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        models = Models(engine)
        message = await self.make(models).ainfer(models, engine.prompt, self.size)
        return str(message["content"])


def beam_search(models: Models) -> Any:
    """Make the library's beam search, which keeps `BEAM_WIDTH` candidates a level."""
    from its_hub.core.algorithms.beam_search import BeamSearch

    return BeamSearch(_steps(models), models, beam_width=BEAM_WIDTH)


def particle_filtering(models: Models) -> Any:
    """Make the library's particle filtering."""
    from its_hub.core.algorithms.particle_gibbs import ParticleFiltering

    return ParticleFiltering(_steps(models), models)


def _steps(models: Models) -> Any:
    from its_hub.core.lms.step_generation import StepGeneration

    return StepGeneration(
        max_steps=STEPS,
        step_token=DELIMITER,
        stop_token=models.engine.end,
        temperature=models.engine.temperature,
        include_stop_str_in_output=True,
    )


def sized(name: str, make: Callable[[Models], Any], unit: int = 1) -> Sized:
    """Return an algorithm of the library as an arm whose size is still to be chosen."""
    return Sized(name, lambda size: ItsHub(name, make, size), unit)
