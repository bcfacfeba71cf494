"""The gate phase: a candidate measured, and held against the incumbent and the best release so far."""

from __future__ import annotations

import shutil
from pathlib import Path

from ramify.weights import Release
from ramify_trainer.config import GateConfig
from ramify_trainer.gate.decision import Comparison, GateDecision, decide
from ramify_trainer.gate.policy_scores import PolicyScores, measured
from ramify_trainer.gate.value_scores import AnswerPool, ValuePredictions, compared, judged, pool_answers
from ramify_trainer.loop.progress import ComputeThread


class Gate:
    """`folder` keeps what releases were measured at."""

    def __init__(self, config: GateConfig, seed: int, folder: Path, worker: ComputeThread) -> None:
        self.config, self.seed, self.folder, self.worker = config, seed, folder, worker

    async def measured(self, policy: Path, kept: Path) -> PolicyScores:
        """A policy on the gate's problems; from `kept` where it was measured before."""
        return await measured(policy, self.config, self.seed, kept, self.worker, self.config.value_answers)

    async def of(self, release: Release) -> PolicyScores:
        """A release that is or was served."""
        return await self.measured(release.policy_path, self.folder / f"{release.id}.json")

    def keep(self, kept: Path, release: str) -> None:
        """What a candidate was measured at is what the release is measured at."""
        self.folder.mkdir(exist_ok=True)
        shutil.copyfile(kept, self.folder / f"{release}.json")

    async def decide(
        self, here: Path, incumbent: Release, best: Release
    ) -> tuple[GateDecision, dict[str, float]]:
        """On the candidate in `here`, whose policy is measured into `here/gate.json`; and all figures."""
        policy = await self.measured(here / "policy", here / "gate.json")
        before, top = await self.of(incumbent), await self.of(best)
        figures = policy.figures()
        also: list[Comparison] = []
        if self.config.value_answers:
            found, also = await self._values(here / "value", pool_answers(before, policy), incumbent, best)
            figures |= found.figures()
        margins = self.config.margin, self.config.greedy_margin
        decision = decide(policy, before, top, margins[0], self.seed, also, margins[1])
        return decision, {**figures, **decision.figures()}

    async def _values(
        self, candidate: Path, pool: AnswerPool, incumbent: Release, best: Release
    ) -> tuple[ValuePredictions, list[Comparison]]:
        """The value models on the same answers: those of the policies before and after."""
        ours = await self._judged(candidate, incumbent, pool)
        margin = self.config.margin if self.config.value_margin is None else self.config.value_margin
        also: list[Comparison] = []
        for against, release in {"incumbent": incumbent, "best": best}.items():
            if against == "incumbent" or release.id != incumbent.id:
                theirs = await self._judged(release.value_path, release, pool)
            also += compared(against, ours, theirs, margin, self.seed)
        return ours, also

    async def _judged(self, value: Path, of: Release, pool: AnswerPool) -> ValuePredictions:
        """`of` says how the value is calibrated and what a step is: a candidate inherits both."""
        calibration, action = of.manifest.calibration, of.manifest.default_action
        return await self.worker.run(
            judged, value, (calibration.a, calibration.b), pool, action, self.worker.check
        )
