"""The train phase, by one process or by several: from the learner that a round begins with to two model directories.

Started by `torchrun`, every process is told its rank. Only rank 0 has the lock, the lease, the port and the server; it
sends each round's training to the others, which are idle otherwise. What it sends goes over a group of its own, on
which the others may wait for as long as a collection takes. Before every step rank 0 says whether to go on, since a
process that stopped alone would leave the others waiting in it. If rank 0 is gone, so is the connection, and the others
end.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ramify.weights import ADAPTER, Release
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.config import LearningConfig, Phase
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.metrics import RoundMetrics
from ramify_trainer.loop.state import RoundRecord
from ramify_trainer.progress import Progress, WorkCancelled

logger = logging.getLogger(__name__)
CANDIDATE = ("policy", ADAPTER, "value")
"""Folders that a candidate may have."""
LONGEST_WAIT = timedelta(days=365)
"""Time that the others wait for the first process, between two rounds at most."""
Job = tuple[LearningConfig, Path | None, Release, Release, Sequence[LabelledTree], Path, tuple[int, int]]
"""Arguments of `learn`, but for `progress`."""


def learn(
    config: LearningConfig,
    begun: Path | None,
    incumbent: Release,
    reference: Release,
    trees: Sequence[LabelledTree],
    folder: Path,
    seeds: tuple[int, int],
    progress: Progress,
) -> tuple[RoundMetrics, int]:
    """Train, and leave `learner/`, `policy/` or `policy_adapter/`, and `value/` in `folder`. Return the round's figures
    and the run's steps.

    begun: the saved learner of `incumbent`; None: one at step 0 from that release. reference: whose policy `kl_beta`
    holds to. seeds: the run's and the round's. Raises `FloatingPointError` if a gradient is not finite; nothing is left
    then."""
    # What a training that was cut short after its export has left.
    for part in CANDIDATE:
        shutil.rmtree(folder / part, ignore_errors=True)
    learner = _learner(config, begun, incumbent, reference, seeds[0])
    try:
        metrics = learner.round(trees, seed=seeds[1], progress=progress)
        learner.save(folder / "learner")
        learner.export(folder, incumbent)
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


class Team:
    """This process and those beside it; one alone without `torchrun`. `joined` waits for the others."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), _size()
        self._group: Any = None

    @classmethod
    def joined(cls) -> Team:
        """Return the team that the environment speaks of."""
        team = cls()
        if team.size > 1:
            import torch.distributed
            from accelerate import Accelerator

            Accelerator()  # sets up the group that the steps use
            team._group = torch.distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
        return team

    def learn(self, job: Job, progress: Progress) -> tuple[RoundMetrics, int]:
        """Run `learn` in all processes; called by the first, with all arguments but `progress`."""
        if self.size == 1:
            return learn(*job, progress)
        self._said(job)
        return learn(*job, lambda done, total: self._lead(progress, done, total))

    def follow(self) -> None:
        """Take part in every training until the first process has no more. Raises `TrainerError` if it is gone
        between two steps; within one, torch's own errors."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the first process is told too, and decides when to stop
        while True:
            job: Job | None = self._said(None)
            if job is None:
                return
            try:
                learn(*job, self._halting)
            except (FloatingPointError, WorkCancelled) as error:
                logger.info("a training ended early: %s", error)

    def dismiss(self) -> None:
        """Let the others end."""
        if self.size > 1:
            self._said(None)

    def _lead(self, progress: Progress, done: int, total: int) -> None:
        try:
            progress(done, total)
        except WorkCancelled:
            self._said(True)
            raise
        self._said(False)

    def _halting(self, *_: int) -> None:
        if self._said(None):
            raise WorkCancelled

    def _said(self, what: Any) -> Any:
        """Hand what the first process says here to every process. Raises `TrainerError` if one is gone."""
        import torch.distributed

        box = [what]
        try:
            torch.distributed.broadcast_object_list(box, src=0, group=self._group)
        except RuntimeError as error:  # the connection's
            raise TrainerError(f"a process of the training is gone: {error}") from error
        return box[0]


def require_one_process(command: str) -> None:
    """Raise `TrainerError` under `torchrun`, for what starts a server of its own."""
    if _size() > 1:
        raise TrainerError(f"{command} runs on one process: start `run` with torchrun, beside a server")


def _size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


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
