"""How much runs at once, counted in generated tokens that running searches may still spend.

A search reserves its whole token budget before it starts and gives it back when it ends. What does not fit waits
in one first-come, first-served queue of bounded length and time, and is then refused: with `KeyBusy` (429) where the
asker's own searches hold more than an equal share of the server, else with `ServerBusy` (503).

The time to wait before trying again is computed: the share of what is reserved that must be freed first, of all that
running searches may still generate, over the rate at which they have generated so far.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ramify.service.errors import DRAINED, Busy, KeyBusy, ServerBusy
from ramify.settings import Admission as Settings

LONGEST_RETRY = 120
"""Seconds; OpenAI's client ignores a longer Retry-After."""
UNKNOWN_RETRY = 5
"""Seconds, where nothing runs by which to tell."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A reservation, held or waited for."""

    key_id: str
    tokens: int
    """Generated tokens that the search may spend."""
    since: float = 0.0
    """When it was let in, on the clock."""
    spent: Callable[[], int] = lambda: 0
    """Tokens that it has generated so far."""
    granted: asyncio.Future[None] | None = None
    """Of a waiting ticket: resolved when it is its turn."""


@dataclass(slots=True)
class Admission:
    """The reservations of one server. All calls on one event loop."""

    settings: Settings
    clock: Callable[[], float]
    """Seconds, monotonic."""
    refused: Callable[[str], None] = lambda reason: None
    """Told the reason of every refusal: `key`, `full`, `timeout`, `reloading` or `draining`."""
    running: list[Ticket] = field(default_factory=list)
    waiting: deque[Ticket] = field(default_factory=deque)
    closed: bool = False
    paused: bool = False
    """While it lasts nobody is let in; the queue goes on, within its bounds."""

    @property
    def reserved(self) -> int:
        return sum(ticket.tokens for ticket in self.running)

    async def enter(self, key_id: str, tokens: int) -> Ticket:
        """Reserve `tokens`, waiting if need be. Raises `Busy`; cancelled, it leaves the queue."""
        ticket = Ticket(key_id, min(tokens, self.settings.tokens_in_flight))
        if self.closed:
            raise self._refuse(ticket, "draining")
        if self._over_key_limit(ticket):
            raise self._refuse(ticket, "key")
        if not self.waiting and self._fits(ticket):
            self._let_in(ticket)
            return ticket
        if len(self.waiting) >= self.settings.queue:
            raise self._refuse(ticket, "full")
        await self._wait(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a reservation back and let those in who now fit."""
        self.running.remove(ticket)
        self._admit()

    def close(self) -> None:
        """Admit nobody any more and send those who wait away."""
        self.closed = True
        while self.waiting:
            ticket = self.waiting.popleft()
            if ticket.granted is not None and not ticket.granted.done():
                ticket.granted.set_exception(self._refuse(ticket, "draining"))

    def pause(self) -> None:
        """Let nobody in until `resume`: those who come wait their turn, as long as the queue takes them."""
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._admit()

    def retry_after(self, tokens: int) -> int:
        """Whole seconds, 1 to 120, until about `tokens` more can be reserved."""
        ahead = sum(ticket.tokens for ticket in self.waiting)
        missing = max(1, ahead + tokens - (self.settings.tokens_in_flight - self.reserved))
        if len(self.running) >= self.settings.searches and self.running:
            missing = max(missing, min(ticket.tokens for ticket in self.running))
        left = sum(max(0, ticket.tokens - ticket.spent()) for ticket in self.running)
        rate = self.rate()
        if not rate:
            return UNKNOWN_RETRY
        return min(LONGEST_RETRY, max(1, math.ceil(missing / self.reserved * left / rate)))

    def rate(self) -> float:
        """Tokens a second that the running searches have generated, each since it was let in."""
        now = self.clock()
        return sum(ticket.spent() / max(1.0, now - ticket.since) for ticket in self.running)

    def _let_in(self, ticket: Ticket) -> None:
        ticket.since = self.clock()
        self.running.append(ticket)

    async def _wait(self, ticket: Ticket) -> None:
        ticket.granted = asyncio.get_running_loop().create_future()
        self.waiting.append(ticket)
        try:
            async with asyncio.timeout(self.settings.queue_seconds):
                await ticket.granted
        except BaseException as error:
            if ticket in self.waiting:
                self.waiting.remove(ticket)
            elif ticket in self.running:  # granted in the very moment in which the wait was given up
                self.leave(ticket)
            self._admit()
            if isinstance(error, TimeoutError):
                raise self._refuse(ticket, "timeout") from None
            raise

    def _admit(self) -> None:
        while self.waiting and self._fits(self.waiting[0]):
            ticket = self.waiting.popleft()
            assert ticket.granted is not None
            if not ticket.granted.done():  # else its asker has left and has not yet taken it out of the queue
                self._let_in(ticket)
                ticket.granted.set_result(None)

    def _fits(self, ticket: Ticket) -> bool:
        return (
            not self.paused
            and len(self.running) < self.settings.searches
            and self.reserved + ticket.tokens <= self.settings.tokens_in_flight
        )

    def _over_key_limit(self, ticket: Ticket) -> bool:
        limit = self.settings.key_tokens_in_flight
        return limit is not None and self._held_by(ticket.key_id) + ticket.tokens > limit

    def _held_by(self, key_id: str) -> int:
        return sum(ticket.tokens for ticket in self.running if ticket.key_id == key_id)

    def _refuse(self, ticket: Ticket, reason: str) -> Busy:
        after = self.retry_after(ticket.tokens)
        keys = {held.key_id for held in self.running} | {ticket.key_id}
        over_share = self._held_by(ticket.key_id) > self.reserved / len(keys)
        if self.paused and reason in ("full", "timeout"):
            self.refused("reloading")
            return ServerBusy(
                "a release is being activated, and the queue is full", retry_after=UNKNOWN_RETRY
            )
        if reason == "key" or (reason != "draining" and over_share):
            self.refused("key")
            return KeyBusy("this API key's running searches fill its share of the server", retry_after=after)
        self.refused(reason)
        if reason == "draining":
            return ServerBusy(DRAINED, retry_after=after)
        return ServerBusy(
            f"the server is full: {len(self.running)} searches run and {len(self.waiting)} wait",
            retry_after=after,
        )
