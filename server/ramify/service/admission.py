"""Decide how much runs at once, counted in tokens that running requests may still generate, and who is next.

A search reserves its whole token budget before it starts and gives it back when it ends; so does a plain completion.
What does not fit waits, for a bounded time and in a bounded number of places.

The queue is fair between API keys, in tokens: each key has a queue of its own, and next is the first of the key that
has been let in for the fewest tokens (start-time fair queueing, Goyal, Vin and Cheng 1996). A key gathers no credit
while nothing of it waits. The one whose turn it is waits until it fits, so that small requests cannot
starve a large one. (2026-11-28; deficit round robin gives the same shares with two more numbers to choose.)

The places are shared alike: if all are taken, the key that has most of them loses its newest to a newcomer of another
key. Whoever holds or waits for more than an equal share is refused with `key_over_share` (429), and so is a
key over its own limit; everyone else with `server_full` (503), which says that the server itself is full.

In a fleet that limit holds for all replicas together: a key over it, counting what it had elsewhere a moment ago, is
refused, and one below it waits, without holding others up, until it has share enough here (`ramify.fleet.shares`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ramify.fleet import Replica
from ramify.fleet.shares import asking, lowered, share
from ramify.service.errors import DRAINED, ServiceError
from ramify.service.standing import Standing, not_ready
from ramify.settings import AdmissionSettings

LONGEST_RETRY = 120
"""Seconds; OpenAI's client ignores a longer Retry-After."""
UNKNOWN_RETRY = 5
"""Seconds to wait if nothing has ended from which to tell."""
WINDOW = 30.0
"""Seconds over which the rate of ends is measured: an end that long ago counts for 1/e."""


DISPLACED = "this API key holds most places in the queue, and another key's request took this one's"


@dataclass(eq=False, slots=True)
class Ticket:
    """A reservation, held or waited for."""

    key_id: str
    tokens: int
    """Generated tokens that the request may spend."""
    granted: asyncio.Future[None] | None = None
    """Resolved at the turn of a ticket that waits."""


@dataclass(slots=True)
class Rate:
    """The recent rate at which requests end: each end counts for less the longer ago it was."""

    clock: Callable[[], float]
    began: float = 0.0
    at: float = 0.0
    """When the sums below were last brought up to date."""
    tokens: float = 0.0
    requests: float = 0.0

    def go_on(self) -> None:
        """Leave out the time since the last end: there was no work in it."""
        idle = self.clock() - self.at
        self.began, self.at = self.began + idle, self.at + idle

    def ended(self, tokens: int) -> None:
        """Count the end of a request that had reserved `tokens`."""
        self._fade()
        self.tokens += tokens
        self.requests += 1

    def seconds(self, tokens: float, requests: float) -> float | None:
        """Return the time until so much has ended, at this rate; `None` if nothing ever has."""
        self._fade()
        if not self.requests:
            return None
        window = WINDOW * -math.expm1(-max(1.0, self.at - self.began) / WINDOW)
        return max(tokens / self.tokens, requests / self.requests) * window

    def _fade(self) -> None:
        now = self.clock()
        kept = math.exp((self.at - now) / WINDOW)
        self.tokens, self.requests, self.at = self.tokens * kept, self.requests * kept, now


@dataclass(eq=False, slots=True)
class KeyQueue:
    """The reservations of one API key, held and waited for."""

    rate: Rate
    waiting: dict[Ticket, None] = field(default_factory=dict)
    """Tickets that wait, first come, first served."""
    held: int = 0
    """Tokens reserved by the key's running requests."""
    wanted: int = 0
    """Tokens of the key's waiting requests."""
    let_in: int = 0
    """Tokens let in so far, on the scale of `Admission.turn`."""

    @property
    def demand(self) -> int:
        return self.held + self.wanted


@dataclass(slots=True)
class Admission:
    """The reservations of one server. All calls on one event loop."""

    settings: AdmissionSettings
    clock: Callable[[], float]
    """Seconds, monotonic."""
    refused: Callable[[str], None] = lambda reason: None
    """Hears the reason of every refusal: `key`, `full`, `timeout`, `reloading`, `not_ready` or `draining`."""
    standing: Standing = field(default_factory=Standing)
    """Is asked whenever somebody is let in."""
    running: dict[Ticket, None] = field(default_factory=dict)
    """Tickets held, in the order in which they were let in."""
    keys: dict[str, KeyQueue] = field(default_factory=dict)
    """Every key that has asked for something."""
    reserved: int = 0
    """Tokens of everything that runs."""
    waiting: int = 0
    """Number of tickets that wait."""
    wanted: int = 0
    """Tokens of the tickets that wait."""
    turn: int = 0
    """`let_in` of the key that was let in last, as it was then. No key whose queue is empty falls behind it."""
    closed: bool = False
    """True once nobody is admitted any more: the server drains."""
    holds: int = 0
    """Number of `pause` without their `resume`."""
    shares: Mapping[str, int] | None = None
    """Tokens that each key's running requests may hold here, of its limit in the fleet; `None`: all of it."""
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    """Tokens that each key holds and waits for at other replicas."""
    rate: Rate = field(init=False)

    def __post_init__(self) -> None:
        self.rate = Rate(self.clock)

    def check(self, key_id: str, tokens: int = 1) -> None:
        """Raise the `ServiceError` with which a request of at least `tokens` would be refused at once, if it would."""
        if self.closed:
            raise self._refuse(key_id, tokens, "draining")
        if self.standing.problem():
            raise self._refuse(key_id, tokens, "not_ready")
        if self._over_limit(key_id, tokens):
            raise self._refuse(key_id, tokens, "key")
        if not self._at_once(key_id, tokens) and self._no_place(key_id):
            raise self._refuse(key_id, tokens, "full")

    async def enter(self, key_id: str, tokens: int, patience: float = math.inf) -> Ticket:
        """Reserve `tokens`, waiting `patience` seconds at most. Raises `ServiceError`; cancelled, it leaves the queue.

        A request larger than the server, or than its key's limit, counts as all of it, and so runs alone."""
        ticket = Ticket(key_id, min(tokens, self.settings.tokens_in_flight, self._limit()))
        self.check(key_id, ticket.tokens)
        queue = self.keys.setdefault(key_id, KeyQueue(Rate(self.clock)))
        if not queue.waiting:
            queue.let_in = max(queue.let_in, self.turn)
        if self._at_once(key_id, ticket.tokens):
            self._let_in(ticket)
        else:
            await self._wait(ticket, min(patience, self.settings.queue_seconds))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a reservation back and let those in who now fit."""
        del self.running[ticket]
        self.reserved -= ticket.tokens
        queue = self.keys[ticket.key_id]
        queue.held -= ticket.tokens
        queue.rate.ended(ticket.tokens)
        self.rate.ended(ticket.tokens)
        self._admit()

    def close(self) -> None:
        """Admit nobody any more, and refuse those who wait."""
        self.closed = True
        self._empty("draining")

    def bar(self) -> None:
        """Refuse those who wait: this server's standing has come to forbid that they are let in."""
        self._empty("not_ready")

    def _empty(self, reason: str) -> None:
        for queue in list(self.keys.values()):
            for ticket in list(queue.waiting):
                self._send_away(ticket, self._refuse(ticket.key_id, ticket.tokens, reason))

    @property
    def paused(self) -> bool:
        """True while nobody is let in; the queue goes on, within its bounds."""
        return self.holds > 0

    def pause(self) -> None:
        """Let nobody in until `resume`, once for each `pause`: those who come wait, as long as the queue takes them."""
        self.holds += 1

    def resume(self) -> None:
        self.holds -= 1
        self._admit()

    def ask_for_shares(self, me: Replica, others: Sequence[Replica]) -> Replica:
        """Return this replica's row with the shares that it asks for, if keys have a limit; smaller ones hold at once.

        others: the live ones."""
        limit = self.settings.key_tokens_in_flight
        if limit is None:
            return me
        queues = {key: queue for key, queue in self.keys.items() if queue.demand}
        demands = {key: queue.demand for key, queue in queues.items()}
        held = {key: queue.held for key, queue in queues.items()}
        row = asking(me, others, limit, demands, held)
        assert row.shares is not None
        assert self.shares is not None
        self.shares = lowered(self.shares, row.shares)
        return row

    def divide(self, shares: Mapping[str, int], elsewhere: Mapping[str, int]) -> None:
        """Go by other shares of the fleet's limits from now on, and let those in who now fit."""
        self.shares, self.elsewhere = shares, elsewhere
        self._admit()

    def retry_after(self, key_id: str, tokens: int) -> int:
        """Whole seconds, 1 to 120, until about `tokens` more can be reserved, by the rate at which requests end."""
        if self._over_limit(key_id, tokens):
            over = self._demand(key_id) + tokens - self._limit()
            seconds = self.keys[key_id].rate.seconds(over, 0) if key_id in self.keys else None
        else:
            missing = self.wanted + tokens - (self.settings.tokens_in_flight - self.reserved)
            places = self.waiting + 1 - (self.settings.searches - len(self.running))
            seconds = self.rate.seconds(max(0, missing), max(0, places))
        return UNKNOWN_RETRY if seconds is None else min(LONGEST_RETRY, max(1, math.ceil(seconds)))

    # -- who is next ---------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        while (ticket := self._next()) and self._fits(ticket.tokens):
            self._unqueue(ticket)
            assert ticket.granted is not None
            # One that is done: its caller has left and has not yet taken it out of the queue.
            if not ticket.granted.done():
                self._let_in(ticket)
                ticket.granted.set_result(None)

    def _next(self) -> Ticket | None:
        """The first of the key that was let in for the fewest tokens, of those with share enough."""
        first = [(queue.let_in, next(iter(queue.waiting))) for queue in self.keys.values() if queue.waiting]
        able = [one for one in first if self._has_share(one[1].key_id, one[1].tokens)]
        return min(able, key=lambda one: one[0])[1] if able else None

    def _let_in(self, ticket: Ticket) -> None:
        queue = self.keys[ticket.key_id]
        for idle, rate in ((not queue.held, queue.rate), (not self.running, self.rate)):
            if idle:
                rate.go_on()
        self.turn = queue.let_in
        queue.let_in += ticket.tokens
        queue.held += ticket.tokens
        self.running[ticket] = None
        self.reserved += ticket.tokens

    def _at_once(self, key_id: str, tokens: int) -> bool:
        """Tell whether a newcomer need not wait: it fits, and overtakes nobody who only waits for his turn."""
        own = key_id in self.keys and self.keys[key_id].waiting
        free = not self.waiting or (not own and self._next() is None)
        return free and self._has_share(key_id, tokens) and self._fits(tokens)

    def _has_share(self, key_id: str, tokens: int) -> bool:
        """Tell whether a key may hold so much more at this replica."""
        held = self.keys[key_id].held if key_id in self.keys else 0
        return self.shares is None or held + tokens <= share(self.shares, key_id)

    def _fits(self, tokens: int) -> bool:
        return (
            not self.paused
            and self.standing.problem() is None
            and len(self.running) < self.settings.searches
            and self.reserved + tokens <= self.settings.tokens_in_flight
        )

    # -- those who wait ------------------------------------------------------------------------------------------

    async def _wait(self, ticket: Ticket, seconds: float) -> None:
        self._make_place()
        ticket.granted = asyncio.get_running_loop().create_future()
        queue = self.keys[ticket.key_id]
        queue.waiting[ticket] = None
        queue.wanted += ticket.tokens
        self.waiting += 1
        self.wanted += ticket.tokens
        try:
            async with asyncio.timeout(seconds):
                await ticket.granted
        except BaseException as error:
            self._withdraw(ticket)
            if isinstance(error, TimeoutError):
                raise self._refuse(ticket.key_id, ticket.tokens, "timeout") from None
            raise

    def _withdraw(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it is by now: the wait for it was given up."""
        if ticket in self.running:  # let in in that very moment
            self.leave(ticket)
        elif ticket in self.keys[ticket.key_id].waiting:
            self._unqueue(ticket)
            self._admit()

    def _unqueue(self, ticket: Ticket) -> None:
        queue = self.keys[ticket.key_id]
        del queue.waiting[ticket]
        queue.wanted -= ticket.tokens
        self.waiting -= 1
        self.wanted -= ticket.tokens

    def _send_away(self, ticket: Ticket, refusal: ServiceError) -> None:
        self._unqueue(ticket)
        if ticket.granted is not None and not ticket.granted.done():
            ticket.granted.set_exception(refusal)

    def _no_place(self, key_id: str) -> bool:
        """Tell whether no place is free, and no other key has so many that one of them is this key's due."""
        if self.waiting < self.settings.queue:
            return False
        mine = len(self.keys[key_id].waiting) if key_id in self.keys else 0
        return mine + 1 >= max((len(queue.waiting) for queue in self.keys.values()), default=0)

    def _make_place(self) -> None:
        """Send the newest ticket of the key with most places away if all places are taken."""
        if self.waiting >= self.settings.queue:
            most = max(self.keys.values(), key=lambda queue: len(queue.waiting))
            newest = next(reversed(most.waiting))
            after = self.retry_after(newest.key_id, newest.tokens)
            self.refused("key")
            self._send_away(newest, ServiceError("key_over_share", DISPLACED, retry_after=after))

    # -- refusals ------------------------------------------------------------------------------------------------

    def _limit(self) -> int:
        """Tokens that one key may hold and wait for."""
        return self.settings.key_tokens_in_flight or self.settings.tokens_in_flight

    def _over_limit(self, key_id: str, tokens: int) -> bool:
        if self.settings.key_tokens_in_flight is None:
            return False
        demand = self._demand(key_id)
        return demand > 0 and demand + tokens > self._limit()

    def _demand(self, key_id: str) -> int:
        """Return the tokens that a key holds and waits for, in the whole fleet."""
        here = self.keys[key_id].demand if key_id in self.keys else 0
        return here + self.elsewhere.get(key_id, 0)

    def _over_share(self, key_id: str) -> bool:
        """Tell whether the key holds and waits for more than an equal share of all that is held and waited for."""
        active = sum(1 for queue in self.keys.values() if queue.demand)
        return key_id in self.keys and self.keys[key_id].demand * active > self.reserved + self.wanted

    def _refuse(self, key_id: str, tokens: int, reason: str) -> ServiceError:
        if reason == "not_ready" or (reason == "timeout" and self.standing.problem()):
            self.refused("not_ready")
            return not_ready(self.standing.problem() or "this server has just left service")
        after = self.retry_after(key_id, tokens)
        if self.paused and reason in ("full", "timeout"):
            self.refused("reloading")
            return ServiceError(
                "server_full",
                "a release is being activated, and the queue is full",
                retry_after=UNKNOWN_RETRY,
            )
        scarce = reason == "timeout" and not self._has_share(key_id, tokens)
        if reason == "key" or scarce or (reason != "draining" and self._over_share(key_id)):
            self.refused("key")
            return ServiceError(
                "key_over_share",
                "this API key's own requests, running and waiting, fill its share of the server",
                retry_after=after,
            )
        self.refused(reason)
        if reason == "draining":
            return ServiceError("server_full", DRAINED, retry_after=after)
        if reason == "timeout":
            return ServiceError(
                "server_full", "the server is full: no place came free in time", retry_after=after
            )
        return ServiceError(
            "server_full",
            f"the server is full: {len(self.running)} requests run and {self.waiting} wait",
            retry_after=after,
        )
