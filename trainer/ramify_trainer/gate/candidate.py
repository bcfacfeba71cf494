"""The gate phase: measure a candidate, and hold it against the incumbent and the best release so far."""

from __future__ import annotations

import shutil
from pathlib import Path

from ramify.weights import ModelFiles, Release
from ramify_trainer.compute_thread import ComputeThread
from ramify_trainer.config import GateConfig, SamplerConfig
from ramify_trainer.gate.decision import Comparison, GateDecision, decide
from ramify_trainer.gate.policy_scores import PolicyScores, score_policy
from ramify_trainer.gate.value_scores import (
    AnswerPool,
    ValuePredictions,
    compare_values,
    pool_answers,
    predict_values,
)
from ramify_trainer.progress import Progress


class Gate:
    """The gate of a run. `folder` keeps the scores of releases. told: called in the worker's thread with how much of
    a measurement is done, and of how much."""

    def __init__(
        self,
        config: GateConfig,
        sampler: SamplerConfig,
        seed: int,
        folder: Path,
        worker: ComputeThread,
        told: Progress,
    ) -> None:
        self.config, self.sampler, self.seed = config, sampler, seed
        self.folder, self.worker, self._told = folder, worker, told

    async def scores_of(self, release: Release) -> PolicyScores:
        """Return the scores of a release that is or was served."""
        return await self._scores(release.models, self.folder / f"{release.id}.json")

    def keep(self, scores: Path, release: str) -> None:
        """Keep a candidate's scores as those of the release that it has become."""
        self.folder.mkdir(exist_ok=True)
        shutil.copyfile(scores, self.folder / f"{release}.json")

    async def decide(
        self, candidate: ModelFiles, kept: Path, incumbent: Release, best: Release
    ) -> tuple[GateDecision, dict[str, float]]:
        """Decide on a candidate, and keep its scores in the file `kept`; also return all figures."""
        policy = await self._scores(candidate, kept)
        before, top = await self.scores_of(incumbent), await self.scores_of(best)
        figures = policy.figures() | policy.costs()
        value_comparisons: list[Comparison] = []
        if self.config.value_answers:
            pool = pool_answers(before, policy)
            predictions, value_comparisons = await self._values(candidate, pool, incumbent, best)
            figures |= predictions.figures()
        margins = self.config.margin, self.config.greedy_margin
        decision = decide(policy, before, top, margins[0], self.seed, value_comparisons, margins[1])
        return decision, {**figures, **decision.figures()}

    async def _scores(self, models: ModelFiles, kept: Path) -> PolicyScores:
        return await score_policy(
            models.policy,
            self.config,
            self.seed,
            kept,
            self.worker,
            self.config.value_answers,
            self.sampler,
            self._told,
            models.adapter,
        )

    async def _values(
        self, candidate: ModelFiles, pool: AnswerPool, incumbent: Release, best: Release
    ) -> tuple[ValuePredictions, list[Comparison]]:
        """Compare the value models on the same answers: those of the policies before and after."""
        ours = await self._predict(candidate, incumbent, pool)
        margin = self.config.margin if self.config.value_margin is None else self.config.value_margin
        comparisons: list[Comparison] = []
        theirs = ours
        for against, release in {"incumbent": incumbent, "best": best}.items():
            if against == "incumbent" or release.id != incumbent.id:
                theirs = await self._predict(release.models, release, pool)
            comparisons += compare_values(against, ours, theirs, margin, self.seed)
        return ours, comparisons

    async def _predict(self, models: ModelFiles, like: Release, pool: AnswerPool) -> ValuePredictions:
        """Ask the value of a release or candidate; `like` says how it is calibrated and what a step is,
        which a candidate inherits."""
        calibration, action = like.manifest.calibration, like.manifest.default_action
        return await self.worker.run(
            predict_values, models, (calibration.a, calibration.b), pool, action, self._told
        )
