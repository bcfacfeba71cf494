"""The judge of a search on an engine: a value model of its own, or a value head on the policy's trunk.

A search scores every step of an answer, so a call holds sequences each of which begins the next. A causal model's
judgement at a position depends on nothing after it: one pass over the longest sequence gives all of them, exactly. (On
two cores, five steps of an answer cost the demo's value model 3.2 ms in place of 7.6.)

One pass gives up the engine's prefix cache, which holds no judgements: the whole sequence is computed afresh. So it is
done only if that is less than what the separate requests would compute beyond their cached blocks.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence, Set

from ramify.engines.config import Serving
from ramify.engines.errors import EngineError
from ramify.engines.formats import Write
from ramify.engines.judges import ONE_LABEL, Question, Reading
from ramify.engines.limiter import EngineLimiter
from ramify.engines.ports import Engine, RawSample, SampleParams, SampleRequest, plain_cancellation
from ramify.engines.tokenizer import Tokenizer
from ramify.search.protocols import Scorer
from ramify.search.records import Score

BLOCK = 32
"""Tokens that a separate request computes afresh at least, about: the end of its prefix that fills no KV block, and
what a request costs beside its tokens."""
EDGE = 1e-9
"""Values are taken for logits no nearer to 0 and 1 than this."""
ONE_TOKEN = SampleParams(max_tokens=1, temperature=0.0)
ScorerFactory = Callable[[Tokenizer, Scorer | None], Scorer]
"""Makes a scorer of the policy's tokenizer and the value model's scorer, `None` without a value model."""


class EngineScorer(ABC):
    """`search.protocols.Scorer` on one engine: value = sigmoid(a · logit + b).

    The engine is asked for the raw logit (whether vLLM would apply an activation depends on the checkpoint), and the
    sigmoid is applied here, once.
    """

    def __init__(
        self,
        engine: Engine,
        limiter: EngineLimiter,
        serving: Callable[[], Serving],
        calibration: tuple[float, float] | None = None,
    ) -> None:
        """serving: the release that the calling task leases, else the one served. calibration: (a, b); `None`: the
        release's own."""
        self._engine = engine
        self._limiter = limiter
        self._serving = serving
        self._calibration = calibration

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        """Judge whole sequences, all sent at once. Raises `EngineDead` or an `EngineError`."""
        if not sequences:
            return []
        serving = self._serving()
        logits = await self._logits(sequences)
        a, b = self._calibration or serving.calibration
        return [Score(sigmoid(a * logit + b), serving.release) for logit in logits]

    async def values(
        self, sequences: Sequence[Sequence[int]], calibration: tuple[float, float]
    ) -> list[float]:
        """Judge as `score` does, under the calibration of a release that is loaded and not yet served."""
        if not sequences:
            return []
        logits = await self._logits(sequences)
        a, b = calibration
        return [sigmoid(a * logit + b) for logit in logits]

    async def _drawn(
        self, states: Iterable[Sequence[int]], params: SampleParams, seed: int | None = None
    ) -> list[RawSample]:
        """Draw once after each state, from the policy of the release that the calling task leases."""
        adapter = self._serving().adapter
        requests = [SampleRequest(state, params, seed, adapter=adapter) for state in states]
        async with self._limiter.slots(len(requests)):
            with plain_cancellation():
                return await self._engine.generate(requests)

    @abstractmethod
    async def _logits(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Return one finite logit for each sequence, of which there is one at least."""


class VllmScorer(EngineScorer):
    """A value model of its own.

    Sequences that begin one another are judged in one pass if the model is causal (`chains`).

    `write` makes the model's input of the policy's token ids if the two have different tokenizers, or the model
    wants a form of its own (`formats`). `None` hands the ids through.
    """

    def __init__(
        self,
        engine: Engine,
        limiter: EngineLimiter,
        serving: Callable[[], Serving],
        write: Write | None = None,
        reading: Reading = ONE_LABEL,
        calibration: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(engine, limiter, serving, calibration)
        self._write = write
        self._reading = reading

    async def _logits(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        prompts = await written(self._write, sequences)
        jobs = self._jobs(prompts)
        async with self._limiter.slots(len(jobs)):
            judged = await self._engine.classify([(prompts[job[0]], len(job) > 1) for job in jobs])
        return logits_of(prompts, jobs, judged, self._reading)

    def _jobs(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Indices of the sequences of each engine request, the one that is sent first."""
        if not self._engine.causal:
            return [[i] for i in range(len(prompts))]
        jobs: list[list[int]] = []
        for chain in chains(prompts):
            # Token by token the prefix cache is not read in any case.
            joined = self._reading.tokenwise or worth_it(len(prompts[chain[0]]), len(chain))
            jobs += [chain] if joined else [[i] for i in chain]
        return jobs


class TrunkScorer(EngineScorer):
    """A value head on the policy's own trunk, asked by drawing one token after each sequence: the head reads the state
    that it is sampled from.

    What the policy judged while it wrote needs no such request. One costs little more than its token: what is before
    it is in the policy's prefix cache, as a rule.
    """

    def __init__(
        self,
        engine: Engine,
        limiter: EngineLimiter,
        serving: Callable[[], Serving],
        closing: Callable[[], Set[int]],
    ) -> None:
        """engine: the policy's. closing: the tokens that only close what was written (`tokens.closing_tokens`)."""
        super().__init__(engine, limiter, serving)
        self._closing = closing

    async def _logits(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        read = [self._read(sequence) for sequence in sequences]
        states = dict.fromkeys(read)
        drawn = await self._drawn(states, ONE_TOKEN)
        logits = {state: _first_logit(one) for state, one in zip(states, drawn, strict=True)}
        return [logits[state] for state in read]

    def _read(self, sequence: Sequence[int]) -> tuple[int, ...]:
        """Return the tokens at whose end a sequence is judged."""
        state = tuple(sequence[:-1] if sequence and sequence[-1] in self._closing() else sequence)
        if not state:
            raise EngineError("a sequence of nothing, or of one token that only closes, cannot be judged")
        return state


class PolicyJudge(EngineScorer):
    """The policy, asked in words whether an answer is right.

    It may only answer with one of two tokens, and their log-probabilities are what counts: one token drawn for each
    answer, most of whose prompt is in the prefix cache."""

    def __init__(
        self,
        engine: Engine,
        limiter: EngineLimiter,
        serving: Callable[[], Serving],
        question: Question,
        calibration: tuple[float, float],
    ) -> None:
        """engine: the policy's."""
        super().__init__(engine, limiter, serving, calibration)
        self._write = question.write
        self._tokens = question.tokens
        self._params = SampleParams(max_tokens=1, temperature=1.0, top=2, allowed=question.tokens)

    async def _logits(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        inputs = await written(self._write, sequences)
        drawn = await self._drawn(inputs, self._params, seed=0)
        return [self._log_odds(one) for one in drawn]

    def _log_odds(self, drawn: RawSample) -> float:
        bad, good = (dict(drawn.top).get(token, -math.inf) for token in self._tokens)
        if not math.isfinite(good - bad):
            raise EngineError(f"the judge gave the log-probabilities {good} and {bad} for its two answers")
        return good - bad


async def written(write: Write | None, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the inputs that `write` makes of states, in a thread: a long one takes tens of milliseconds, in which
    nobody else would be served."""
    return await asyncio.to_thread(write, sequences) if write else [list(s) for s in sequences]


def _first_logit(drawn: RawSample) -> float:
    if not drawn.logits or not math.isfinite(drawn.logits[0]):
        raise EngineError(f"the value head gave {drawn.logits[:1] or 'no logit'} for a sequence")
    return drawn.logits[0]


def logits_of(
    prompts: Sequence[Sequence[int]],
    jobs: Sequence[Sequence[int]],
    judged: Sequence[Sequence[Sequence[float]]],
    reading: Reading = ONE_LABEL,
) -> list[float]:
    """One finite logit for each prompt, out of what came back for each job: the labels' logits at the end of its
    sequence, or at each of its positions. Raises `EngineError`."""
    if len(judged) != len(jobs):
        raise EngineError(
            f"{len(jobs)} sequences were sent to the value model and {len(judged)} judgements came back"
        )
    logits = [0.0] * len(prompts)
    for job, positions in zip(jobs, judged, strict=True):
        expected = len(prompts[job[0]]) if len(job) > 1 else 1
        if len(positions) != expected:
            raise EngineError(f"the value model judged {len(positions)} positions in place of {expected}")
        for index in job:
            values = positions[len(prompts[index]) - 1] if len(job) > 1 else positions[0]
            if len(values) != reading.labels:
                raise EngineError(f"the value model gave {len(values)} values for one sequence")
            if not all(map(math.isfinite, values)):
                raise EngineError(f"the value model gave {', '.join(map(str, values))} for a sequence")
            logits[index] = log_odds(values, reading.label)
    return logits


def log_odds(logits: Sequence[float], label: int) -> float:
    """Return the logit of a label's share of the softmax: log p - log(1 - p); a single label's logit is its own."""
    others = [logit for i, logit in enumerate(logits) if i != label]
    if not others:
        return logits[label]
    most = max(others)
    return logits[label] - most - math.log(sum(math.exp(logit - most) for logit in others))


def logit(value: float) -> float:
    """Return the logit of a value in [0, 1], which is taken no nearer to 0 and 1 than `EDGE`."""
    value = min(max(value, EDGE), 1 - EDGE)
    return math.log(value / (1 - value))


def sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def chains(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return indices grouped so that every sequence of a group begins the group's first, which is its longest.

    Each index stands in exactly one group; equal sequences share one."""
    keys = [tuple(sequence) for sequence in sequences]
    groups: list[list[int]] = []
    for index in sorted(range(len(keys)), key=keys.__getitem__, reverse=True):
        key = keys[index]
        if groups and keys[groups[-1][0]][: len(key)] == key:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def worth_it(longest: int, members: int) -> bool:
    """Return whether one pass over `longest` tokens is cheaper than `members` requests that find most tokens cached."""
    return members > 1 and longest <= BLOCK * members
