"""The train phase: from the learner that the round begins with to one that is saved, and to two model directories."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ramify.weights import Release
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labelled import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.metrics import RoundMetrics


def learn(
    config: LearningConfig,
    begun: Path | None,
    reference: Release,
    trees: Sequence[LabelledTree],
    folder: Path,
    seeds: tuple[int, int],
    progress: Callable[[int, int], None],
) -> tuple[RoundMetrics, int]:
    """Train, and leave `learner/`, `policy/` and `value/` in `folder`. The round's figures, and the steps of the run.

    begun: a saved learner; None: one at step 0 from `reference`, which `kl_beta` holds to in any case. seeds: the
    run's and the round's. Raises `FloatingPointError` where a gradient is not finite; nothing is left then."""
    for part in ("policy", "value"):
        shutil.rmtree(folder / part, ignore_errors=True)  # of a training that was cut short after its export
    learner = _learner(config, begun, reference, seeds[0])
    try:
        found = learner.round(trees, seed=seeds[1], progress=progress)
        learner.save(folder / "learner")
        learner.export(folder, reference.path)
        return found, learner.steps
    finally:
        learner.close()


def _learner(config: LearningConfig, begun: Path | None, reference: Release, seed: int) -> Learner:
    if begun is not None:
        return Learner.resume(config, begun, reference.policy_path)
    calibration = reference.manifest.calibration
    return Learner.start(
        config,
        reference.policy_path,
        reference.value_path,
        reference.policy_path,
        calibration=(calibration.a, calibration.b),
        seed=seed,
    )
