"""The only world that a search knows: a policy that writes, a scorer that judges, a task that says what is right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from ramify.search.records import Action, Continuation, Departure, Hurdle, Revision, Sampling, Score, Verdict


class EngineDead(RuntimeError):
    """An engine is gone for good: no later request to it can succeed."""


class GradingFailed(RuntimeError):
    """The verifier itself failed; this says nothing about the answer."""


class SampleAborted(asyncio.CancelledError):
    """`Policy.sample` was cancelled after the engine had already generated `tokens` tokens. The asyncio task
    that ends with it counts as cancelled."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"aborted after {tokens} generated tokens")
        self.tokens = tokens


class Policy(Protocol):
    """A language model, run by an *engine*. `next_tokens` is asked for `token` actions alone.

    Both calls free their engine work when cancelled and may raise `EngineDead`.
    """

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        """Draw one continuation of `prefix` (token ids, prompt included) for each of `seeds`, which are below 2^64.
        They are independent, and each has at most `sampling.max_tokens` tokens.

        Cancelled, it raises `SampleAborted` with the number of tokens that it had generated."""
        ...

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        """Return the k most likely next tokens, likeliest first, each as a continuation of one token with their exact
        log-probabilities (before any truncation; log-softmax of logits/temperature). Costs one generated token."""
        ...


@runtime_checkable
class DepartingPolicy(Policy, Protocol):
    """A policy that can leave out what is known: each continuation then begins with the tokens of its `Departure`, and
    goes on with none of those that it bars. If it is a `JudgingPolicy` too, so can `write_on`, by the same argument."""

    @property
    def departs(self) -> bool:
        """True if it can now."""
        ...

    async def sample(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        departures: Sequence[Departure | None] = (),
    ) -> list[Continuation]:
        """Draw as `Policy.sample` does. departures: one for each seed, or none at all."""
        ...


def departs(policy: Policy) -> bool:
    """Tell whether a policy can leave out what is known."""
    return isinstance(policy, DepartingPolicy) and policy.departs


@runtime_checkable
class JudgingPolicy(Policy, Protocol):
    """A policy that judges what it writes while it writes it, such as one with a value head on its own trunk: its
    continuations carry `values`, and nothing else need be asked about them."""

    async def write_on(
        self,
        prefix: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        action: Action,
        hurdle: Hurdle,
        length: int,
    ) -> list[Continuation]:
        """Draw as `sample` does, to the end of the answer, and give a draw up at the first end of an action at which
        its value is below the hurdle: it then finishes as "abandoned".

        length: tokens of the answer that `prefix` holds already. A draw that is given up may hold tokens past the end
        of that action; they were generated, and count."""
        ...


class Scorer(Protocol):
    """A value model: the expected outcome of an answer, finished or not."""

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        """Judge whole sequences (prompt and answer so far, token ids); one Score each, in order.

        A search passes `records.State`s, which say where the prompt and each action of the answer end."""
        ...


Write = Callable[[Sequence[int], int], Awaitable[str]]
"""Has the policy write after a prompt of token ids, at most so many tokens, and returns the text. They count
against the search's budget and the cap of the better answer that is drawn next, which may have as many fewer."""


Reviser = Callable[[str, float | None, Write], Awaitable[Revision]]
"""Asks for better answers, under `action: refine`: called with (text, outcome, write), it returns what better answers
than a complete one are drawn from. A search asks once for each answer that it goes on from.

text: the whole answer. outcome: the verdict on it, in [0, 1], if the search's grader is the verifier; `None`: the
search does not know it, and the policy must not learn it here. write: has the policy write a critique. Raises
`GradingFailed` if there is no feedback to be had."""


class Task(Protocol):
    """One problem and its rules, bound together."""

    async def final(self, text: str) -> str | None:
        """Return the final answer of a complete text in canonical form: equal answers get equal strings. `None` if the
        text holds no answer.

        Raises `GradingFailed` if it cannot be told: this text then votes by itself. A search asks for one text after
        another, while it grows, and gives up asking when it must answer."""
        ...

    async def grade(self, text: str) -> Verdict:
        """Judge whether a complete text (the answer alone, without the prompt) is right.

        Raises `GradingFailed` if that cannot be told: after a crash or at a deadline, never for a wrong answer."""
        ...
