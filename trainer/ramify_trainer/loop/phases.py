"""How many phases of `[learning]` have begun: a round has the file's settings with those phases' on top.

A function of the rounds so far, which the state file keeps: a run that goes on after a kill is in the phase that it was
in, and nothing else has to remember it. A phase that has begun stays, also if its figure goes back, or an operator to
an earlier release.
"""

from __future__ import annotations

from collections.abc import Sequence

from ramify_trainer.learning.config import LearningConfig, Phase
from ramify_trainer.loop.state import RoundRecord

__all__ = ["begun_phases"]


def begun_phases(config: LearningConfig, history: Sequence[RoundRecord]) -> int:
    """Return how many phases have begun when the round begins that follows `history`: they begin in their order, each
    with the first round before which it is due."""
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
