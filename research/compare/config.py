"""Settings of a comparison, from one TOML file: arms that differ in their search and their objective, and in nothing
else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ramify_trainer.config import (
    CollectConfig,
    FromBase,
    GateConfig,
    HeldOutConfig,
    LoopConfig,
    TemperatureConfig,
)
from ramify_trainer.learning.config import LearningConfig, Section

__all__ = ["Arm", "ArmRun", "CompareConfig", "SearchedConfig"]

OF_EVERY_ARM = ("budget", "steps_per_round", "tokens_per_batch")
"""Settings that no arm may have for itself: they make the arms comparable."""


class Arm(Section):
    """One way to learn."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,24}$")
    label: str
    """For people."""
    search: Mapping[str, Any]
    """Its searches of training problems; the budget is everybody's."""
    learning: Mapping[str, Any]
    """Its objective and what belongs to it, by phases if it moves; the rest is everybody's."""
    temperature: TemperatureConfig | None = None
    """Its searches' temperature, if that follows what they draw."""
    seeds: int = Field(default=1, ge=1)
    """Runs of it, with seeds 0, 1, ..."""

    @model_validator(mode="after")
    def _keeps_to_the_terms(self) -> Self:
        own = {*self.search, *self.learning, *chain(*self.learning.get("phases", ()))}
        for key in OF_EVERY_ARM:
            if key in own:
                raise ValueError(f"arm {self.name!r} sets {key!r}, which must be the same for all")
        return self


class SearchedConfig(Section):
    """Held-out problems answered with search."""

    data: str = "countdown:test?numbers=4"
    problems: int = Field(default=100, ge=1)
    search: Mapping[str, Any] = Field(default={"algorithm": "mcts", "budget": {"tokens": 150}})
    concurrency: int = Field(default=32, ge=1, le=1024)


class CompareConfig(FromBase):
    """One comparison."""

    name: str = Field(default="compare", pattern=r"^[A-Za-z0-9_.-]{1,12}$")
    rounds: int = Field(default=5, ge=1)
    budget: Mapping[str, int] = Field(default={"tokens": 300})
    """Budget of one search."""
    collect: CollectConfig = CollectConfig()
    """Its search is the arm's."""
    learning: LearningConfig = LearningConfig()
    """Its objective is the arm's."""
    held_out: HeldOutConfig = HeldOutConfig()
    searched: SearchedConfig = SearchedConfig()
    arms: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have one name: {', '.join(names)}")
        return self

    def runs(self) -> Iterator[ArmRun]:
        """Yield every arm with its first seed, then those that have a second one, and so on."""
        for seed in range(max(arm.seeds for arm in self.arms)):
            yield from (ArmRun(arm, seed) for arm in self.arms if seed < arm.seeds)

    def loop(self, run: ArmRun, folder: Path) -> LoopConfig:
        """Return the loop of `run`. Its gate lets everything pass: what is compared is learning."""
        search = {**run.arm.search, "budget": dict(self.budget)}
        learning = {**self.learning.model_dump(), **run.arm.learning}
        return LoopConfig(
            name=f"{self.name}-{run.name}",
            seed=run.seed,
            rounds=self.rounds,
            base=self.base,
            weights=folder / "weights",
            state=folder / "state",
            collect=CollectConfig.model_validate(
                {**self.collect.model_dump(), "search": search, "temperature": run.arm.temperature}
            ),
            learning=LearningConfig.model_validate(learning),
            gate=GateConfig(
                data=self.collect.data, problems=1, answers=1, margin=1.0, greedy_margin=1.0, value_answers=0
            ),
            held_out=self.held_out,
        )


@dataclass(frozen=True, slots=True)
class ArmRun:
    """An arm with one seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and of its part of the log."""
        return f"{self.arm.name}-{self.seed}"
