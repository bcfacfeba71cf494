"""Admission under random arrivals, cancels, timeouts, pauses and ends, held against a model that one can read."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.service.admission import Admission, Ticket
from ramify.service.errors import ServiceError
from ramify.settings import AdmissionSettings

TOKENS, SEARCHES, QUEUE, SECONDS, LIMIT = 20, 3, 5, 10.0, 18


class HandWoundLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until somebody turns it. Something must always be ready to run."""

    now = 0.0

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())

    def time(self) -> float:
        return self.now


def run(play: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=HandWoundLoop) as runner:
        runner.run(play)


async def turns() -> None:
    """Until nothing of admission's is left to run."""
    for _ in range(6):
        await asyncio.sleep(0)


@dataclass
class Asked:
    """One request as its asker sees it."""

    key: str
    tokens: int
    number: int
    task: asyncio.Task[Ticket]
    left: bool = False

    @property
    def waits(self) -> bool:
        return not self.task.done()

    @property
    def ticket(self) -> Ticket | None:
        """The ticket that it holds, if it holds one."""
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result() if done and not self.left else None


@dataclass
class Model:
    """Laws of admission, in terms of what its askers see alone."""

    door: Admission
    asked: list[Asked] = field(default_factory=list)

    def ask(self, key: str, tokens: int) -> None:
        task = asyncio.create_task(self.door.enter(key, tokens))
        self.asked.append(Asked(key, tokens, len(self.asked), task))

    def end(self, which: int) -> None:
        """End one of those that run; nothing that another does may make it fail."""
        held = [a for a in self.asked if a.ticket is not None]
        if held:
            asked = held[which % len(held)]
            assert asked.ticket is not None
            self.door.leave(asked.ticket)
            asked.left = True

    def hang_up(self, which: int) -> None:
        if waiting := [a for a in self.asked if a.waits]:
            waiting[which % len(waiting)].task.cancel()

    def check(self) -> None:
        door = self.door
        held, waiting = [a for a in self.asked if a.ticket], [a for a in self.asked if a.waits]
        for asked in self.asked:
            if asked.task.done() and not asked.task.cancelled():
                assert isinstance(asked.task.exception(), ServiceError | None)
        assert door.reserved == sum(a.tokens for a in held) <= TOKENS
        assert set(door.running) == {a.ticket for a in held}
        assert len(held) <= SEARCHES
        assert (door.waiting, door.wanted) == (len(waiting), sum(a.tokens for a in waiting))
        assert door.waiting <= QUEUE
        for key, queue in door.keys.items():
            assert queue.held == sum(a.tokens for a in held if a.key == key)
            assert queue.wanted == sum(a.tokens for a in waiting if a.key == key)
            assert queue.demand <= LIMIT
            numbers = [a.number for a in waiting if a.key == key]
            assert all(a.number < n for n in numbers for a in held if a.key == key), (
                "first come, first served"
            )
        if waiting and not door.paused and not door.closed:
            heads = [next(a for a in waiting if a.key == key).tokens for key in {a.key for a in waiting}]
            assert len(held) == SEARCHES or door.reserved + max(heads) > TOKENS, "room, and nobody let in"
        assert not (door.closed and waiting)


WHICH = st.integers(0, 2)
ACTIONS = st.one_of(
    *[st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(1, 12))] * 3,
    st.tuples(st.sampled_from(["end", "hang up"]), WHICH, WHICH),
    st.tuples(st.just("hang up as one ends"), WHICH, WHICH),
    st.tuples(st.sampled_from(["wait too long", "pause", "resume", "resume"]), WHICH, WHICH),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ACTIONS, st.sampled_from([True, True, False])), min_size=10, max_size=60),
    st.booleans(),
)
def test_no_order_of_events_loses_a_reservation_or_a_place(
    events: list[tuple[tuple[str, Any, Any], bool]], closes: bool
) -> None:
    """Each event comes with whether the loop runs before the next: what happens in one turn is where waiters clash."""

    async def play() -> None:
        limits = AdmissionSettings(
            tokens_in_flight=TOKENS,
            searches=SEARCHES,
            queue=QUEUE,
            queue_seconds=SECONDS,
            key_tokens_in_flight=LIMIT,
        )
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HandWoundLoop)
        model = Model(Admission(limits, loop.time))
        for (name, first, second), settle in events:
            if name == "ask":
                model.ask(first, second)
            elif name == "end":
                model.end(first)
            elif name == "hang up":
                model.hang_up(first)
            elif name == "hang up as one ends":
                model.hang_up(first)
                model.end(second)
            elif name == "wait too long":
                loop.now += SECONDS
            else:
                getattr(model.door, name)()
            if settle:
                await turns()
                model.check()
        await turns()
        model.check()
        if closes:
            model.door.close()
        for asked in model.asked:
            asked.task.cancel()
        await turns()
        model.check()
        while any(a.ticket for a in model.asked):
            model.end(0)
        assert not model.door.running
        assert (model.door.reserved, model.door.waiting, model.door.wanted) == (0, 0, 0)

    run(play())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=5, max_size=40))
def test_two_keys_that_always_wait_are_let_in_for_equal_tokens(sizes: list[tuple[int, int]]) -> None:
    async def play() -> None:
        door = Admission(AdmissionSettings(searches=1), asyncio.get_running_loop().time)
        held = await door.enter("other", 1)
        tasks = [
            asyncio.create_task(door.enter(key, tokens))
            for pair in sizes
            for key, tokens in zip("ab", pair, strict=True)
        ]
        await turns()
        let_in = {"a": 0, "b": 0, "other": 0}
        while door.keys["a"].waiting and door.keys["b"].waiting:
            door.leave(held)
            (held,) = door.running
            let_in[held.key_id] += held.tokens
            assert abs(let_in["a"] - let_in["b"]) <= 20, "at most one request of the largest size apart"
        for task in tasks:
            task.cancel()
        await turns()

    run(play())
