"""A language model and its judges that one can read: no weights, every probability written down.

The fake language has one token per character (its code point) and 0 as the end token. A `Rule` says, for an answer so
far, which texts come next and how likely each is; the empty text is the end.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ramify.search.protocols import EngineDead, GradingFailed, SampleAborted, Write
from ramify.search.records import Continuation, Finish, Revision, Sampling, Score, Verdict

END = 0
ASKED = "»"
"""Ends a prompt that asks for a better answer."""
Rule = Callable[[str], Mapping[str, float]]


def encode(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def decode(tokens: Sequence[int]) -> str:
    return "".join(chr(t) for t in tokens if t != END)


def letters(choices: Mapping[str, float], depth: int) -> Rule:
    """Answers of `depth` lines, each one of `choices`, drawn independently."""

    def rule(text: str) -> Mapping[str, float]:
        if text.count("\n") == depth:
            return {"": 1.0}
        return {f"{letter}\n": p for letter, p in choices.items()}

    return rule


@dataclass
class FakePolicy:
    """Samples by a rule. With `jitter`, requests end in a random but seeded order; `die_after` requests it is dead."""

    rule: Rule
    prompt: str = "?\n"
    jitter: random.Random | None = None
    die_after: int | None = None
    gate: asyncio.Event | None = None
    """When given, no request ends before it is set."""
    seconds: float = 0.0
    """How long each request takes."""
    requests: list[tuple[str, Sampling, int]] = field(default_factory=list)
    """The text that was continued, how, and how often."""
    running: int = 0
    most_running: int = 0
    generated: int = 0
    aborted: int = 0

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        return await self._written(prefix, sampling, seeds, self._draws)

    async def _written(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        draws: Callable[[str, Sampling, Sequence[int]], list[Continuation]],
    ) -> list[Continuation]:
        """Answer one request, and keep its books."""
        if self.die_after is not None and len(self.requests) >= self.die_after:
            raise EngineDead("the fake engine was told to die")
        text = decode(prefix)
        assert text.startswith(self.prompt)
        self.requests.append((text, sampling, len(seeds)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self._take_time()
        except asyncio.CancelledError:
            self.aborted += 1
            self.generated += len(seeds)
            raise SampleAborted(len(seeds)) from None
        finally:
            self.running -= 1
        steps = draws(self.answer(text), sampling, seeds)
        self.generated += sum(len(s.token_ids) for s in steps)
        return steps

    def answer(self, text: str) -> str:
        """The answer so far, of a text that was to be continued."""
        return text.removeprefix(self.prompt).rpartition(ASKED)[2]

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        text = decode(prefix).removeprefix(self.prompt)
        self.generated += 1
        choices = sorted(self.rule(text).items(), key=lambda c: -c[1])[:k]
        assert all(len(c) <= 1 for c, _ in choices), "token actions need a rule of single characters"
        return [
            Continuation(
                (ord(c) if c else END,), c, (math.log(p),), (len(c),), "length" if c else "eos", "fake"
            )
            for c, p in choices
        ]

    async def _take_time(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.seconds:
            await asyncio.sleep(self.seconds)
        for _ in range(self.jitter.randrange(4) if self.jitter else 1):
            await asyncio.sleep(0)

    def _draws(self, text: str, sampling: Sampling, seeds: Sequence[int]) -> list[Continuation]:
        return [self._one(text, sampling, random.Random(seed)) for seed in seeds]

    def _one(self, text: str, sampling: Sampling, rng: random.Random) -> Continuation:
        tokens: list[int] = []
        logprobs: list[float] = []
        said, finish = "", None
        while finish is None:
            choices = self.rule(text + said)
            if sampling.temperature == 0:
                chosen = max(choices, key=lambda c: choices[c])
            else:
                (chosen,) = rng.choices(list(choices), list(choices.values()))
            for i, token in enumerate(encode(chosen) or (END,)):
                tokens.append(token)
                logprobs.append(math.log(choices[chosen]) if i == 0 else 0.0)
                said += chr(token) if token != END else ""
                finish = self._finish(token, said, len(tokens), sampling)
                if finish:
                    break
        ends, at = [], 0
        for token in tokens:
            at += token != END
            ends.append(at)
        return Continuation(tuple(tokens), said, tuple(logprobs), tuple(ends), finish, "fake")

    @staticmethod
    def _finish(token: int, said: str, length: int, sampling: Sampling) -> Finish | None:
        if token == END:
            return "eos"
        if any(said.endswith(stop) for stop in sampling.stop):
            return "stop"
        return "length" if length >= sampling.max_tokens else None


@dataclass
class FakeScorer:
    """Judges a text by a function of the answer so far."""

    value: Callable[[str], float]
    prompt: str = "?\n"
    scored: int = 0
    batches: int = 0

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        await asyncio.sleep(0)
        self.scored += len(sequences)
        self.batches += 1
        return [Score(self.value(decode(s).removeprefix(self.prompt)), "fake") for s in sequences]


@dataclass
class FakeTask:
    """An answer is its text without line breaks; `right` says which are right, `broken` on which the verifier fails."""

    right: Callable[[str], bool] = lambda text: False
    broken: Callable[[str], bool] = lambda text: False
    graded: int = 0

    async def final(self, text: str) -> str | None:
        return text.replace("\n", "") or None

    async def grade(self, text: str) -> Verdict:
        self.graded += 1
        if self.broken(text):
            raise GradingFailed("the fake verifier was told to fail")
        return Verdict(float(self.right(text)), "by rule")


@dataclass
class FakeReviser:
    """Repeats the answer in its prompt, with the outcome if it was told one. It closes those that are `full`, and has
    nothing to say of those that are `mute`."""

    prompt: str = "?\n"
    full: Callable[[str], bool] = lambda text: False
    mute: Callable[[str], bool] = lambda text: False
    asked: list[tuple[str, float | None]] = field(default_factory=list)

    async def __call__(self, text: str, outcome: float | None, write: Write) -> Revision:
        self.asked.append((text, outcome))
        await asyncio.sleep(0)
        if self.mute(text):
            raise GradingFailed("the fake task has nothing to say")
        if self.full(text):
            return Revision("too long", closed="context")
        return Revision(f"outcome {outcome}", encode(self.asks(text, outcome)))

    def asks(self, text: str, outcome: float | None = None) -> str:
        """The prompt that asks for an answer better than `text`."""
        return f"{self.prompt}{text}|outcome {outcome}{ASKED}"
