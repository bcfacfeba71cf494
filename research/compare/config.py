"""Settings of a comparison, from one TOML file: arms that differ in their search and in how they learn from it, at
equal tokens of a search and of a step."""

from __future__ import annotations

import tomllib
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
    MeasureConfig,
    TemperatureConfig,
)
from ramify_trainer.learning.config import LearningConfig, Section

__all__ = ["Arm", "ArmRun", "CompareConfig", "SearchedConfig", "TrlConfig"]

OF_EVERY_ARM = ("budget", "tokens_per_batch")
"""Settings that no arm may have for itself: they make the arms comparable."""
OF_TRL = ("policy_learning_rate", "warmup_steps", "weight_decay", "adam_beta2", "max_grad_norm")
"""Settings of `learning` that mean something to TRL's trainer as well. Clips do not: each step learns from its own
policy's answers, of which every ratio is 1."""


class TrlConfig(Section):
    """The arm is no loop of ours but TRL's GRPO, on the same problems in the same order."""

    generations: int = Field(default=16, ge=2)
    """Answers to a problem: as many as cost about what a search costs."""


class Arm(Section):
    """One way to learn."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,24}$")
    label: str
    """For people."""
    search: Mapping[str, Any] = Field(default={})
    """Its searches of training problems; the budget is everybody's."""
    learning: Mapping[str, Any] = Field(default={})
    """Its objective and what belongs to it, by phases if it moves, and steps a round if it has its own; the rest is
    everybody's."""
    temperature: TemperatureConfig | None = None
    """Its searches' temperature, if that follows what they draw."""
    trl: TrlConfig | None = None
    seeds: int = Field(default=1, ge=1)
    """Runs of it, with seeds 0, 1, ..."""
    rounds: int | None = Field(default=None, ge=1)
    """Rounds of its own. None: as many as everybody."""

    @model_validator(mode="after")
    def _keeps_to_the_terms(self) -> Self:
        own = {*self.search, *self.learning, *chain(*self.learning.get("phases", ()))}
        for key in OF_EVERY_ARM:
            if key in own:
                raise ValueError(f"arm {self.name!r} sets {key!r}, which must be the same for all")
        return self

    @model_validator(mode="after")
    def _sets_what_trl_has(self) -> Self:
        if self.trl is None:
            return self
        unknown = [*self.search, *(key for key in self.learning if key not in OF_TRL)]
        unknown += ["temperature"] if self.temperature else []
        if unknown:
            raise ValueError(
                f"arm {self.name!r} is TRL's, which has no {unknown[0]!r}; of `learning` it takes {', '.join(OF_TRL)}"
            )
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
    passes: MeasureConfig | None = None
    """Problems and answers of pass@k, which is measured before and after training. None: it is not."""
    arms: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have one name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _trl_fills_its_steps(self) -> Self:
        problems, steps = self.collect.problems, self.learning.steps_per_round
        if problems % steps and any(arm.trl for arm in self.arms):
            raise ValueError(
                f"collect.problems is {problems}: TRL's steps share them out, so it must be a multiple of "
                f"learning.steps_per_round, {steps}"
            )
        return self

    def tuned_by(self, path: Path) -> Self:
        """Return the comparison with the values of a file that `research.compare.tune` wrote: a table for each arm.

        Raises `ValueError` for an arm that is not there."""
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := values.keys() - {arm.name for arm in self.arms}:
            raise ValueError(f"{path}: no arm is called {min(unknown)!r}")
        arms = [
            arm.model_copy(update={"learning": {**arm.learning, **values.get(arm.name, {})}})
            for arm in self.arms
        ]
        return self.model_validate({**self.model_dump(), "arms": [arm.model_dump() for arm in arms]})

    def goes_on_from(self, before: CompareConfig) -> bool:
        """Tell whether runs that were begun with the settings `before` belong in one table with these: arms and seeds
        may have come in, and pass@k."""
        arms = {arm.name: arm.model_dump(exclude={"label", "seeds"}) for arm in self.arms}
        others = {"arms", "passes"}
        return self.model_dump(exclude=others) == before.model_dump(exclude=others) and all(
            arms.get(arm.name) == arm.model_dump(exclude={"label", "seeds"}) for arm in before.arms
        )

    def runs(self) -> Iterator[ArmRun]:
        """Yield every arm with its first seed, then those that have a second one, and so on."""
        for seed in range(max(arm.seeds for arm in self.arms)):
            yield from (ArmRun(arm, seed) for arm in self.arms if seed < arm.seeds)

    def learning_of(self, arm: Arm) -> LearningConfig:
        """Return everybody's settings with the arm's own."""
        return LearningConfig.model_validate({**self.learning.model_dump(), **arm.learning})

    def rounds_of(self, arm: Arm) -> int:
        """Return how many rounds each of the arm's runs has."""
        return self.rounds if arm.rounds is None else arm.rounds

    def loop(self, run: ArmRun, folder: Path) -> LoopConfig:
        """Return the loop of `run`. Its gate lets everything pass: what is compared is learning."""
        search = {**run.arm.search, "budget": dict(self.budget)}
        return LoopConfig(
            name=f"{self.name}-{run.name}",
            seed=run.seed,
            rounds=self.rounds_of(run.arm),
            base=self.base,
            weights=folder / "weights",
            state=folder / "state",
            collect=CollectConfig.model_validate(
                {**self.collect.model_dump(), "search": search, "temperature": run.arm.temperature}
            ),
            learning=self.learning_of(run.arm),
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
