"""This replica in its fleet: it looks, is told its next step, takes it, and answers only while its lease lasts.

What is decided, and why that is safe, stands in `ramify.fleet`; here is what a decision does to this server. The task
`run` alone changes the replica's own state, between two looks, so that what a look writes is what holds. A step runs
beside it, with the same activation, drain and canary (`releases`) as in a server that is alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import httpx

import ramify
from ramify.fleet import (
    ActivationUnderWay,
    Epoch,
    FleetStore,
    Mode,
    Replica,
    Step,
    View,
    shares,
    status,
)
from ramify.fleet.decisions import QUICK, displaced, holds, others, until_next_look
from ramify.races import cancel
from ramify.service import canary, owners
from ramify.service.completions import Completions
from ramify.service.errors import DRAINED, ActivationFailed, ServiceError
from ramify.service.releases import (
    ActivationResult,
    ActivationSeconds,
    Releases,
    require_not_rejected,
    said,
)
from ramify.service.searches import Searches
from ramify.service.spool import FRESH
from ramify.service.standing import not_ready
from ramify.settings import FleetSettings
from ramify.treelog import LogError
from ramify.weights import Release, WeightsError

logger = logging.getLogger(__name__)
MISTAKES = 3
"""Looks in a row that may fail by a mistake of ours before the server ends, as it would never be ready again."""
CONNECT = 2.0
"""Seconds that another replica may take to take a connection."""
STARTING = "this replica is about to join its fleet"
EVICTED = "this replica was evicted from its fleet"
HOLDING = "a release is being activated"
UNKNOWN_END = (
    "whether {} was activated is not known, as the fleet's database is away: ask GET /admin/fleet later"
)


@dataclass(eq=False, slots=True)
class _Parts:
    """The parts of this server that a step works on."""

    releases: Releases
    searches: Searches
    completions: Completions


@dataclass(eq=False, slots=True)
class Fleet:
    """One replica. Make it with `join` before the engines start; all calls on one event loop."""

    store: FleetStore
    settings: FleetSettings
    mine: Replica
    view: View
    start: Epoch
    """The epoch that was committed when it joined: what its engines start with."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    http: httpx.AsyncClient
    """Asks other replicas."""
    _parts: _Parts | None = None
    _work: asyncio.Task[Callable[[Replica], Replica]] | None = None
    """The step that is being taken; its result says what it made of the replica's row."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _looked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the next look that succeeds, which puts another in its place."""
    _alarm: asyncio.TimerHandle | None = None
    """Rings when the lease runs out."""
    _held: bool = False
    """True while admission is paused for the fleet's sake."""
    _checked: Release | None = None
    """The release that was prepared last."""
    _away: bool = False
    """True if the last look failed."""
    _due: float = -math.inf
    """When the next look is to begin, if the last one was committed."""

    @classmethod
    async def join(
        cls,
        settings: FleetSettings,
        log: str,
        address: str,
        first: Callable[[], Awaitable[Release]],
        clock: Callable[[], float],
        number: int | None = None,
        admin: str | None = None,
        boot_id: str | None = None,
    ) -> Fleet:
        """Join the fleet of a log. first: returns the release that is committed if this is the first replica ever.
        number: this replica's; `None`: the fleet gives it one. admin: address of its admin listener. boot_id: names
        this process in the log, and is the replica's id; `None`: one is made up.

        Raises `FleetError` if the fleet does not take this replica, and `LogError`."""
        assert settings.name is not None
        store = await FleetStore.open(log, settings.lease_seconds / 2)
        try:
            mine = Replica(
                boot_id or uuid.uuid4().hex[:12],
                settings.address or address,
                ramify.__version__,
                0.0,
                settings.lease_seconds,
                number=number,
                admin=admin,
            )
            epoch = None if await store.has_epoch() else await _first(settings, mine, await first())
            view = await store.join(settings.name, mine, epoch)
        except BaseException:
            await store.close()
            raise
        return cls(store, settings, view.replicas[mine.id], view, view.committed, clock, http=_client())

    @property
    def committed(self) -> Epoch:
        return self.view.committed

    def attach(self, releases: Releases, searches: Searches, completions: Completions) -> None:
        """Take part from now on, with engines that hold the release of `start`. Nothing is answered before a look."""
        self._parts = _Parts(releases, searches, completions)
        standing = searches.admission.standing
        standing.refusal, standing.answers_until = STARTING, -math.inf
        if searches.admission.settings.key_tokens_in_flight is not None:
            searches.admission.shares = {shares.EACH: 0}
        searches.log.ended, searches.not_here = self._ended, self._not_here
        self._wake.set()

    async def run(self) -> None:
        """Look again and again, until cancelled; if that fails `MISTAKES` times in a row, end the server."""
        mistakes = 0
        while True:
            delay = self.settings.heartbeat_seconds
            try:
                delay, mistakes = await self._look(), 0
            except Exception as error:
                mistakes += 1
                logger.exception("this replica could not look at its fleet")
                if mistakes >= MISTAKES and self._parts is not None:
                    self._parts.releases.engines.give_up(f"the fleet cannot be looked at: {said(error)}")
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            self._wake.clear()

    async def leave(self) -> None:
        """Take this replica out, once it has ended, and close the store."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._work is not None:
            await cancel(self._work)
        try:
            await self.store.leave(self.mine.id)
        except LogError as error:
            logger.warning("the fleet could not be told that this replica ends: %s", error)
        await self.store.close()
        await self.http.aclose()

    # -- others' searches

    def _ended(self) -> set[str]:
        return owners.ended(self.view, self.mine)

    def _not_here(self, tree_id: str) -> ServiceError | None:
        return owners.not_here(self.view, self.mine, tree_id, self._longest())

    def _longest(self) -> float:
        """Return the seconds after which a search is in the log, if it will ever be."""
        assert self._parts is not None
        searches = self._parts.searches
        return searches.preparer.caps.deadline_seconds + searches.spool.settings.wait_seconds

    # -- looking

    async def _look(self) -> float:
        """Tell the fleet of this replica and learn what is next; return the seconds until the next look."""
        self._collect()
        if self._parts is not None:
            self.mine = self._parts.searches.admission.ask_for_shares(self.mine, others(self.view, self.mine))
        lapsed = self._parts is not None and self._parts.searches.admission.standing.lapsed()
        began = self.clock()
        try:
            self.view, step = await self.store.look(self.mine)
        except LogError as error:
            if not self._away:
                logger.error("the fleet cannot be seen: %s", error)
            self._away, self._due = True, -math.inf
            return min(QUICK, self.settings.heartbeat_seconds)
        self._away = False
        was_evicted, self.mine = self.mine.evicted, self.view.replicas[self.mine.id]
        if lapsed and self._parts is not None and displaced(self.view, self.mine):
            self._parts.releases.engines.give_up(
                f"while it was away, another got its number {self.mine.number}"
            )
        if self.mine.evicted and not was_evicted:
            logger.error("this replica is evicted from its fleet: %s", self.mine.error)
        if self._parts is not None:
            self._apply_standing(self._parts, began)
            if self.mine.shares is not None:
                demands = shares.demands_of(others(self.view, self.mine))
                self._parts.searches.admission.divide(self.mine.shares, demands)
        if step is not None:
            self._work = asyncio.create_task(self._run_step(step), name=f"fleet-{step.work}")
            self._work.add_done_callback(lambda _: self._wake.set())
        self._looked.set()
        self._looked = asyncio.Event()
        delay = until_next_look(self.view, self.mine, self.settings.heartbeat_seconds)
        self._due = self.clock() + delay
        return delay

    def writes(self) -> bool:
        """Tell whether the last look was committed, and with it this replica's row, and the next is not overdue."""
        return self.clock() - self._due <= FRESH

    def _collect(self) -> None:
        """Bring this replica's state up to date with what has happened since the last look."""
        parts = self._parts
        if parts is None:
            return
        if parts.searches.admission.standing.lapsed():
            self._lapse()
            self.mine = replace(self.mine, serving=0)
        if self._work is not None and self._work.done():
            if self._work.cancelled():  # not by us; a `CancelledError` here would end `run` without a word
                raise RuntimeError(
                    f"{self._work.get_name()} was cancelled: what the engines hold is not known"
                )
            self.mine, self._work = self._work.result()(self.mine), None
        loaded = self.mine.loaded or self.start.number
        leaving = parts.searches.draining
        self.mine = replace(self.mine, loaded=loaded, leaving=leaving)
        if leaving and not parts.searches.admission.running:  # drained for good, though it may stay for hours
            self.mine = replace(self.mine, serving=0)

    # -- standing

    def _apply_standing(self, parts: _Parts, began: float) -> None:
        """Do as the last look says, which began at `began`: answer, let requests wait, or refuse them."""
        admission, mine, holding = parts.searches.admission, self.mine, holds(self.view, self.mine)
        standing = admission.standing
        standing.answers_until = began + mine.lease
        standing.refusal = self._refusal(holding)
        standing.waiting = HOLDING if holding else None
        if standing.refusal is not None:
            admission.bar()
        if holding != self._held:
            self._held = holding
            (admission.pause if holding else admission.resume)()
        if self._alarm is not None:
            self._alarm.cancel()
        left = max(0.0, standing.answers_until - self.clock())
        self._alarm = asyncio.get_running_loop().call_later(left, self._lapse)

    def _refusal(self, holding: bool) -> str | None:
        mine, epoch = self.mine, self.committed
        if mine.evicted:
            return f"evicted from its fleet after {mine.failures} failures: {mine.error}"
        if mine.serving or holding:
            return None
        error = f" (failed {mine.failures} times: {mine.error})" if mine.failures else ""
        return f"the fleet serves {epoch.release} (epoch {epoch.number}), and this replica is not there yet{error}"

    def _lapse(self) -> None:
        """Stop and leave unanswered what runs: the lease has run out, and the fleet may go on without this replica."""
        parts = self._parts
        if parts is None:
            return
        why = parts.searches.admission.standing.lapsed()
        if why is None:
            return
        if parts.searches.running or parts.completions.running:
            logger.error("what runs is stopped: %s", why)
        parts.searches.lapse(why)
        parts.completions.lapse(why)
        parts.searches.admission.bar()

    # -- steps

    async def _run_step(self, step: Step) -> Callable[[Replica], Replica]:
        """Take a step, and return what it makes of this replica's row."""
        parts, epoch = self._parts, step.epoch
        assert parts is not None
        if step.work == "closing":
            await self._close(parts, epoch.grace)
            return lambda row: replace(row, work=None, serving=0)
        done: dict[str, Any] = {"work": None, "failing": 0, "failures": 0, "error": None}
        try:
            if self.mine.failing == epoch.number:
                await asyncio.sleep(self.settings.heartbeat_seconds)
            release = await self._prepared(parts, epoch)
            if step.work == "preparing":
                return lambda row: replace(row, prepared=epoch.number, **done)
            report = await self._switch(parts, epoch, release)
        except Exception as error:  # whatever it is, the fleet must hear of it
            logger.error(
                "epoch=%d release=%s %s failed: %s", epoch.number, epoch.release, step.work, said(error)
            )
            text = said(error)
            return lambda row: row.failed(epoch.number, text)
        return lambda row: replace(row, loaded=epoch.number, serving=0, report=report, **done)

    async def _prepared(self, parts: _Parts, epoch: Epoch) -> Release:
        """Return the release of an epoch, checked. Raises `ServiceError` and `WeightsError`."""
        if (
            self._checked is None
            or self._checked.id != epoch.release
            or self._checked.content != epoch.content
        ):
            release = await parts.releases.prepare(epoch.release)
            require_content(release, epoch)
            self._checked = release
        return self._checked

    async def _switch(self, parts: _Parts, epoch: Epoch, release: Release) -> dict[str, Any]:
        """Load a release once nothing runs. Nobody is let in before the next look says so."""
        began = self.clock()
        await parts.searches.quiesce(epoch.grace)
        drained = self.clock()
        result = await parts.releases.take(release, 0.0)
        seconds = replace(result.seconds, drain=drained - began, total=self.clock() - began)
        return {"epoch": epoch.number, "seconds": asdict(seconds), "canary": asdict(result.report)}

    async def _close(self, parts: _Parts, grace: float) -> None:
        """Let what runs come to its end, and end it unanswered if it does not."""
        try:
            await parts.searches.quiesce(grace)
        except Exception as error:
            logger.error("what runs is left unanswered: %s", said(error))
            parts.searches.lapse(EVICTED)
            parts.completions.lapse(EVICTED)

    # -- what operators ask

    async def activate(
        self,
        release_id: str,
        grace: float,
        note: str = "",
        kind: Literal["activate", "rollback"] = "activate",
        mode: Mode = "rolling",
    ) -> ActivationResult:
        """Have every replica serve a release; return once that is committed. Cancelling the call leaves it alone.

        The same release again, while it is being activated, waits for that. Raises `ServiceError`; `ActivationFailed`
        if every replica serves the release before."""
        parts = self._parts
        assert parts is not None
        if parts.searches.draining:
            raise ServiceError("server_full", DRAINED, retry_after=30)
        content = (await parts.releases.prepare(release_id)).content
        recorded = {row.release_id: row for row in await parts.releases.log.releases()}
        require_not_rejected(release_id, recorded.get(release_id))
        view = await self.store.view()
        wanted = _wanted(self.settings, self.mine, release_id, content, mode, kind, note, grace)
        try:
            asked = await self.store.ask(wanted, self.settings.activation_seconds)
        except ActivationUnderWay as error:
            asked = error.epoch
            if (asked.release, asked.content, asked.mode) != (release_id, content, mode):
                raise ServiceError(
                    "activation_in_progress",
                    f"{asked.release} is being activated in the fleet",
                    retry_after=5,
                ) from None
        if asked.number == view.committed.number:
            return self._activated(asked, None)
        self._wake.set()
        ended = await self._end_of(asked)
        if ended.state == "gone_back":
            raise ActivationFailed(
                f"{release_id} was not activated, the fleet serves {self.committed.release} as before: {ended.error}"
            )
        return self._activated(ended, view.committed.release)

    async def rollback(self, grace: float, note: str = "", mode: Mode = "rolling") -> ActivationResult:
        """Serve the release that was active before. Raises as `activate` does, and `conflict` if there is none."""
        assert self._parts is not None
        # Not the last look's: an epoch may have been committed since, by which it serves already.
        if self.mine.serving != (await self.store.view()).committed.number:
            raise not_ready("a rollback is asked of a replica that serves what the fleet does")
        previous = (await self._parts.releases.listing()).previous
        if previous is None:
            raise ServiceError("conflict", "no release was active before this one")
        return await self.activate(previous, grace, note, "rollback", mode)

    async def restore(self, replica: str) -> None:
        """Take an evicted replica back. Raises `ServiceError` (`not_found`)."""
        if not await self.store.restore(replica):
            raise ServiceError(
                "not_found", f"no replica {replica[:40]!r} of this fleet is evicted", param="replica"
            )

    async def _end_of(self, asked: Epoch) -> Epoch:
        """Return an epoch once it has ended. Raises `ServiceError` if that cannot be seen."""
        until = self.clock() + self.settings.activation_seconds + 60
        while self.clock() < until:
            looked = self._looked
            if self.view.newest.number >= asked.number:
                newest = self.view.newest
                epoch = newest if newest.number == asked.number else await self.store.epoch(asked.number)
                if not epoch.under_way:
                    return epoch
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.lease_seconds):
                    await looked.wait()
        raise ServiceError("log_unavailable", UNKNOWN_END.format(asked.release), retry_after=30)

    def _activated(self, epoch: Epoch, previous: str | None) -> ActivationResult:
        """Describe a committed epoch: the canary of this replica, and the slowest one's times."""
        rows = [self.view.replicas[name] for name in sorted(self.view.replicas)]
        reports = [row.report for row in rows if row.report and row.report["epoch"] == epoch.number]
        mine = self.mine.report if self.mine.report in reports else next(iter(reports), None)
        report = canary.CanaryReport(**mine["canary"]) if mine else canary.CanaryReport(0, 0, 0.0, 0.0)
        times: list[dict[str, float]] = [each["seconds"] for each in reports]
        slowest = max(times, key=lambda seconds: seconds["total"], default={})
        total = (epoch.ended_at or 0.0) - epoch.created_at if previous is not None else 0.0
        seconds = ActivationSeconds(**{**slowest, "total": total})
        return ActivationResult(epoch.release, previous, report, seconds, epoch.number, self.view)

    def figures(self) -> dict[str, float]:
        """Return figures by name, for the metrics."""
        return {
            "serving_epoch": self.mine.serving,
            "committed_epoch": self.committed.number,
            "evicted": self.mine.evicted,
            "failures": self.mine.failures,
            "replicas_ready": list(self.statuses().values()).count("ready"),
        }

    def statuses(self) -> dict[str, str]:
        """Return the status of each replica, in a word, by id."""
        return {row.id: status(self.view, row) for row in self.view.replicas.values()}


def require_content(release: Release, epoch: Epoch) -> None:
    """Raise `WeightsError` if a release on disk is another than the epoch's, though of the same id."""
    if release.content != epoch.content:
        raise WeightsError(
            f"{release.path} is another {epoch.release} than the fleet's: its manifest has the sha256 "
            f"{release.content[:12]}, not {epoch.content[:12]}"
        )


def _client() -> httpx.AsyncClient:
    """Make what asks other replicas. Its connections need no bound: each is for a request to this server, whose own
    are bounded."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    return httpx.AsyncClient(timeout=CONNECT, limits=limits, trust_env=False)


async def _first(settings: FleetSettings, mine: Replica, release: Release) -> Epoch:
    content = await asyncio.to_thread(lambda: release.content)
    return _wanted(settings, mine, release.id, content, "rolling", "automatic", "the first of its fleet", 0.0)


def _wanted(
    settings: FleetSettings,
    mine: Replica,
    release: str,
    content: str,
    mode: Mode,
    kind: Literal["activate", "rollback", "automatic"],
    note: str,
    grace: float,
) -> Epoch:
    """Return an activation as this replica asks for it."""
    share = settings.least_share
    return Epoch(0, release, content, "preparing", mode, kind, note, mine.address, share, grace)
