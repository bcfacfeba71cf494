"""The train phase: from the learner that a round begins with to two model directories, and the settings of a round."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.weights import ADAPTER, Release
from ramify_trainer.learning.config import LearningConfig, Phase
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.metrics import RoundMetrics
from ramify_trainer.loop.state import RoundRecord
from ramify_trainer.progress import Progress

CANDIDATE = ("policy", ADAPTER, "value")
"""Folders that a candidate may have."""


@dataclass(frozen=True, slots=True)
class Job:
    """One round's training. It may be done again: what it begins with is on disk, and stays as it is."""

    config: LearningConfig
    begun: Path | None
    """The saved learner of `incumbent`; None: one at step 0 from that release."""
    incumbent: Release
    reference: Release
    """The release whose policy `kl_beta` holds to."""
    trees: Sequence[LabelledTree]
    folder: Path
    """Takes what comes of it: `learner/`, `policy/` or `policy_adapter/`, and `value/`."""
    seeds: tuple[int, int]
    """The run's and the round's."""


def learn(job: Job, progress: Progress) -> tuple[RoundMetrics, int]:
    """Train, in this process or in all of a process group at once. Return the round's figures and the run's steps.

    Raises `FloatingPointError` if a gradient is not finite; nothing is left then."""
    # What a training that was cut short after its export has left.
    for part in CANDIDATE:
        shutil.rmtree(job.folder / part, ignore_errors=True)
    learner = _learner(job.config, job.begun, job.incumbent, job.reference, job.seeds[0])
    try:
        metrics = learner.round(job.trees, seed=job.seeds[1], progress=progress)
        learner.save(job.folder / "learner")
        learner.export(job.folder, job.incumbent)
        return metrics, learner.steps
    finally:
        learner.close()


def _learner(
    config: LearningConfig, begun: Path | None, incumbent: Release, reference: Release, seed: int
) -> Learner:
    if begun is not None:
        return Learner.resume(config, begun, reference.policy_path)
    calibration = incumbent.manifest.calibration
    return Learner.start(
        config,
        incumbent.policy_path,
        incumbent.value_folder,
        reference.policy_path,
        calibration=(calibration.a, calibration.b),
        seed=seed,
        base=(incumbent.base or incumbent).id,
        adapter=incumbent.adapter,
    )


# -- phases of `[learning]` ----------------------------------------------------------------------------------------


def begun_phases(config: LearningConfig, history: Sequence[RoundRecord]) -> int:
    """Return how many phases have begun when the round begins that follows `history`: they begin in their order, each
    with the first round before which it is due.

    A function of the rounds so far, which the state file keeps: a run that goes on after a kill is in the phase that it
    was in, and nothing else has to remember it. A phase that has begun stays, also if its figure goes back, or an
    operator to an earlier release."""
    begun = 0
    for rounds in range(len(history) + 1):
        while begun < len(config.phases) and _is_due(config.phases[begun], history[:rounds]):
            begun += 1
    return begun


def _is_due(phase: Phase, history: Sequence[RoundRecord]) -> bool:
    if phase.from_round is not None:
        return len(history) + 1 >= phase.from_round
    if phase.from_step is not None:
        return max((record.steps for record in history if record.promoted), default=0) >= phase.from_step
    figure = _figures(history[-1]).get(str(phase.figure)) if history else None
    if figure is None:
        return False
    return figure < phase.below if phase.below is not None else figure > (phase.above or 0.0)


def _figures(record: RoundRecord) -> dict[str, float]:
    return {**record.training, **{f"gate/{name}": value for name, value in record.gate.items()}}
