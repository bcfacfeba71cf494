"""The value model of a search, on a vLLM engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ramify.engines.admission import Slots
from ramify.engines.errors import BadScores, EngineError
from ramify.engines.recording import Recorder, Request
from ramify.search.records import Draw, Score

if TYPE_CHECKING:
    from ramify.engines.backend import Backend

Translate = Callable[[Sequence[int]], list[int]]


class VllmScorer:
    """`search.protocols.Scorer` on one engine: value = sigmoid(a · logit + b).

    The engine is asked for the raw logit (whether vLLM would apply an activation depends on the checkpoint), and the
    sigmoid is applied here, once.

    `translate` turns the policy's token ids into the value model's where the two have different tokenizers: the text
    without special tokens, encoded afresh. `None` hands the ids through.
    """

    def __init__(
        self,
        backend: Backend,
        slots: Slots,
        recorder: Recorder,
        release: str,
        calibration: tuple[float, float] = (1.0, 0.0),
        translate: Translate | None = None,
    ) -> None:
        self.release = release
        self.calibration = calibration
        self._backend = backend
        self._slots = slots
        self._recorder = recorder
        self._translate = translate

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        """Judge whole sequences, all sent at once. Raises `BadScores`, `EngineDead` or another `EngineError`."""
        if not sequences:
            return []
        release, (a, b) = self.release, self.calibration
        prompts = [self._translate(s) if self._translate else list(s) for s in sequences]
        taken = await self._slots.acquire(len(prompts))
        try:
            logits = await self._backend.classify(prompts)
        finally:
            self._slots.release(taken)
        if self._recorder.on:
            self._recorder.add(Request("score", tuple(map(tuple, prompts)), (), Draw(n=1, max_tokens=0)))
        return [Score(sigmoid(a * logit + b), release) for logit in one_each(logits, len(prompts))]


class NoScorer:
    """Stands where no value model was configured."""

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        raise EngineError(
            "this server has no value model, so it cannot judge answers: start it with one (--value PATH, or a "
            'release), or search by "self_consistency" or with "grader": "verifier"'
        )


def one_each(logits: Sequence[Sequence[float]], count: int) -> list[float]:
    """One finite logit for each of `count` sequences. Raises `BadScores`."""
    if len(logits) != count:
        raise BadScores(f"{count} sequences were sent to the value model and {len(logits)} values came back")
    for values in logits:
        if len(values) != 1:
            raise BadScores(f"the value model gave {len(values)} values for one sequence")
        if not math.isfinite(values[0]):
            raise BadScores(f"the value model gave {values[0]} for a sequence")
    return [values[0] for values in logits]


def sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))
