"""Searches from admission to the log.

However a search ends (budget, deadline, cancel, disconnect, drain, engine death, a mistake of ours) it goes through
the same last steps, in `_live`: its tree is logged once with its status, then its reservation is given back, and only
then does anyone hear of it. The row comes first because every other step may fail, and a failed step loses nothing
but itself. It also bounds the trees that wait for the log: each of them still holds its place in admission.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ramify.engines.errors import EngineBusy
from ramify.search.batch import Batch
from ramify.search.params import ParamError
from ramify.search.records import Status, StopReason
from ramify.search.run import Progress, Search
from ramify.search.state import BadState
from ramify.search.tree import Tree
from ramify.service.admission import Admission, Ticket
from ramify.service.checkpoints import Checkpoints
from ramify.service.continuing import ContinueSpec, prepare_continuation, require_same_model
from ramify.service.errors import DRAINED, ENGINE_DIED, SearchFailed, ServiceError
from ramify.service.grading import CountedTask, counting, grade_answer
from ramify.service.idempotency import CLAIM_SECONDS, IdempotencyKey, ReplayedAnswer, kept, once
from ramify.service.keys import Caller
from ramify.service.metrics import Metrics
from ramify.service.ports import Engines
from ramify.service.search_preparation import PreparedSearch, SearchPreparer
from ramify.service.search_spec import SearchSpec
from ramify.service.search_view import TREE, failure, search_id, tree_id, uuid7
from ramify.service.spool import Spool
from ramify.service.standing import Standing, not_ready
from ramify.treelog import Entry, KeptAnswer, TreeLog

logger = logging.getLogger(__name__)
LET_GO = 10.0
"""Seconds that a stopped search may take to give up its engine work."""
LOOK_EVERY = 0.02
"""Seconds."""
GOES_ON = IdempotencyKey("continue", body_hash="")
"""Key under which a search is claimed, with the id of the tree that it goes on from in the place of an API key's."""
ELSEWHERE = 5
"""Seconds after which asking again for a search of another server makes sense."""


@dataclass(eq=False, slots=True)
class RunningSearch:
    """A search that was admitted and is not yet logged."""

    id: str
    key_id: str
    tree: Tree
    search: Search
    ticket: Ticket | None
    """Its reservation; `None` if its batch holds one for all."""
    idempotency: IdempotencyKey | None
    started: float
    """On the service's clock."""
    standing: Standing
    life: asyncio.Task[Tree] | None = None
    """Task of the search; its result is the tree, once that is logged."""
    counted: int = 0
    """Tokens already told to the metrics."""
    stopped: bool = False
    """True once it was told to stop; the first reason counts."""
    lapsed: str | None = None
    """Why it may not be answered: found out when it was stopped, or at its end."""

    @property
    def spent(self) -> int:
        """Tokens generated so far."""
        return self.search.budget.tokens

    def progress(self) -> Progress:
        """Tell how far it is, with the best answer so far. Raises `ServiceError` if it may not be answered."""
        self.standing.require_answerable(self.lapsed)
        return self.search.progress()

    def stop(self, status: Status, reason: StopReason) -> None:
        """Free its engine work and let it end with the best answer so far."""
        if not self.stopped:
            self.stopped = True
            self.search.stop(status, reason)

    async def logged(self) -> Tree:
        """Return the tree once it is in the log. Cancelling the wait leaves the search alone. Raises `ServiceError`,
        also if the search ended when this server might not answer any more."""
        assert self.life is not None
        tree = await asyncio.shield(self.life)
        if self.lapsed is not None:
            raise not_ready(f"{self.lapsed}; the search {self.id} is in the log")
        return tree

    async def answered(self) -> Tree:
        """Return the tree as `logged` does. Raises `ServiceError` also if the search has nothing to send."""
        tree = await self.logged()
        if problem := failure(tree, self.search.failure):
            raise problem
        return tree


@dataclass(eq=False, slots=True)
class Searches:
    """Every running search of this server. All calls on one event loop."""

    engines: Engines
    log: TreeLog
    preparer: SearchPreparer
    admission: Admission
    metrics: Metrics
    spool: Spool
    checkpoints: Checkpoints
    verdict_seconds: float
    """Seconds that the verifier may take over the answer of an ended search."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    running: dict[str, RunningSearch] = field(default_factory=dict)
    """Running searches by the id of their tree."""
    stop_others: list[Callable[[], None]] = field(default_factory=list)
    """Called when nothing may run on: each ends other work that was admitted, such as plain completions."""
    not_here: Callable[[str], ServiceError | None] = lambda tree_id: None
    """Tells of a tree, by its id, that is not in the log and has no checkpoint, if another server may have it."""
    _lives: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def draining(self) -> bool:
        """True once no more searches are taken."""
        return self.admission.closed

    async def start(
        self, spec: SearchSpec, caller: Caller, idempotency: IdempotencyKey | None = None
    ) -> RunningSearch | ReplayedAnswer:
        """Admit a search and start it. Cancelled while it waits, nothing was started and nothing is logged.

        Raises `ServiceError`.
        """
        arrived = self.clock()
        self.check(caller, idempotency)
        spec = spec if caller.train else replace(spec, train=False)
        prepared = self.preparer.prepare(spec)

        def as_served(prepared: PreparedSearch) -> PreparedSearch:
            return self.preparer.as_served(spec, prepared)

        return await once(
            self.log,
            caller.key_id,
            idempotency,
            search_id(prepared.tree.id),
            prepared.deadline,
            lambda: self._admit(prepared, as_served, caller, idempotency, arrived),
        )

    async def go_on(
        self, given: str, spec: ContinueSpec, caller: Caller, idempotency: IdempotencyKey | None = None
    ) -> RunningSearch | ReplayedAnswer:
        """Admit the search that goes on from the logged one of this id (a search's or its tree's), and start it.

        Raises `ServiceError`: `not_found` also if it is another key's, `conflict` if it runs, was taken on already, or
        cannot go on."""
        arrived = self.clock()
        self.check(caller, idempotency)
        if (running := self.find(given, caller)) is not None:
            raise ServiceError(
                "conflict",
                f"{running.id} is running: wait until it has ended, or cancel it",
                param="search_id",
            )
        longer = TREE + uuid7(self.preparer.now(), self.preparer.replica)
        patience = self.preparer.deadline(spec.deadline)
        return await once(
            self.log,
            caller.key_id,
            idempotency,
            search_id(longer),
            patience,
            lambda: self._go_on(given, longer, spec, caller, idempotency, arrived),
        )

    async def _go_on(
        self,
        given: str,
        longer: str,
        spec: ContinueSpec,
        caller: Caller,
        idempotency: IdempotencyKey | None,
        arrived: float,
    ) -> RunningSearch:
        entry = await self._entry(given, caller)
        if entry.key_id != caller.key_id:
            raise _unknown(given)
        part = await asyncio.to_thread(entry.tree)
        try:
            await self._claim(part, search_id(longer), self.preparer.deadline(spec.deadline))
            spec = spec if caller.train else replace(spec, train=False)
            prepared = prepare_continuation(self.preparer, part, spec, longer)
            return await self._admit(prepared, self._same_release, caller, idempotency, arrived)
        except BaseException as error:  # also if the client left while the claim was being written
            await asyncio.shield(GOES_ON.abandon(self.log, part.id, search_id(longer)))
            if isinstance(error, BadState | ParamError):
                raise _taken_on(part.id, f"cannot go on: {error}") from error
            raise

    async def _claim(self, part: Tree, search: str, seconds: float) -> None:
        """Claim a logged search for the one that is to go on from it, among all servers on the log. Once that is
        logged its row says so, and the claim may run out. Raises `ServiceError` if it was taken on already."""
        claimed = await self.log.claim(
            part.id, GOES_ON.key, GOES_ON.body_hash, search, seconds=seconds + CLAIM_SECONDS
        )
        if (other := await self.log.continuation(part.id)) is not None:
            raise _taken_on(part.id, f"was taken on already: go on from {search_id(other)}")
        if claimed.state != "new":
            raise _taken_on(part.id, f"is being taken on already, by {claimed.search_id}")

    def _same_release(self, prepared: PreparedSearch) -> PreparedSearch:
        """Return a search that goes on, unless another release was activated while it waited for its turn. Raises
        `ServiceError`."""
        require_same_model(prepared.tree, self.engines.serving, self.engines.others)
        return prepared

    def check(self, caller: Caller, idempotency: IdempotencyKey | None) -> None:
        """Raise the `ServiceError` of a request that cannot be taken now, before any work for it."""
        if self.draining:
            raise ServiceError("server_full", DRAINED, retry_after=30)
        if self.engines.dead.is_set():
            raise ServiceError("engine_unavailable", ENGINE_DIED, retry_after=30)
        if idempotency is None:  # an answer that was kept needs no room
            self.admission.check(caller.key_id)

    async def _admit(
        self,
        prepared: PreparedSearch,
        as_served: Callable[[PreparedSearch], PreparedSearch],
        caller: Caller,
        idempotency: IdempotencyKey | None,
        arrived: float,
    ) -> RunningSearch:
        """Start a search once there is room for it. as_served: adapts it to the release that is served by then."""
        ticket = await self.enter(caller, prepared.tokens, prepared.deadline - (self.clock() - arrived))
        # No await from here on until the search's own task holds the ticket.
        try:
            prepared = as_served(prepared)
            running = self.opened(prepared, caller, None, ticket, idempotency)
            self.begin(running, prepared.deadline, self.clock() - arrived)
        except BaseException:
            self.admission.leave(ticket)
            raise
        return running

    async def enter(self, caller: Caller, tokens: int, patience: float) -> Ticket:
        """Reserve `tokens` once the log takes trees, waiting `patience` seconds at most. Raises `ServiceError`."""
        await self.spool.check()
        return await self.admission.enter(caller.key_id, tokens, patience)

    def opened(
        self,
        prepared: PreparedSearch,
        caller: Caller,
        batch: Batch | None,
        ticket: Ticket | None,
        idempotency: IdempotencyKey | None = None,
    ) -> RunningSearch:
        """Make a search that is ready to begin, with the batch that it takes turns in, or a ticket of its own."""
        tree, engines = prepared.tree, self.engines
        task, reviser = CountedTask(prepared.task, self.metrics.grading_failed), prepared.reviser
        if reviser is not None:
            reviser = counting(reviser, self.metrics.feedback_failed)
        search = Search(
            *(tree, engines.policies, engines.scorer, task),
            clock=self.clock,
            reviser=reviser,
            batch=batch,
            crowd=engines.crowd,
            keeps_state=batch is None,
            checkpoint=self.checkpoints.keeper(caller.key_id) if batch is None else None,
        )
        return RunningSearch(
            *(search_id(tree.id), caller.key_id, tree, search, ticket, idempotency, self.clock()),
            standing=self.admission.standing,
            counted=tree.usage.completion_tokens,
        )

    def begin(self, running: RunningSearch, deadline: float, waited: float) -> None:
        """Run a search in a task of its own. deadline, waited: seconds from the request's arrival, and those gone."""
        self.metrics.started(waited)
        running.life = asyncio.create_task(self._live(running, max(0.0, deadline - waited)), name=running.id)
        self.watch(running.life)
        self.running[running.tree.id] = running

    def watch(self, life: asyncio.Task[Any]) -> None:
        """Have a drain wait for a task that ends when a search does."""
        self._lives.add(life)
        life.add_done_callback(self._forget)

    def _forget(self, life: asyncio.Task[Any]) -> None:
        self._lives.discard(life)
        if not life.cancelled():
            life.exception()  # seen, even if its caller is gone

    async def _live(self, running: RunningSearch, deadline: float) -> Tree:
        """Run a search and log its tree. Whatever else its end brings comes after its row, and cannot prevent it."""
        alarm = asyncio.get_running_loop().call_later(deadline, running.stop, "deadline", "deadline")
        try:
            try:
                with self.engines.lease():
                    await running.search.run()
            except Exception as error:
                close_failed(running.tree, error)
                logger.exception("search %s failed", running.id)
            finally:
                running.lapsed = running.lapsed or self.admission.standing.lapsed()
                await asyncio.shield(self._log(running))
        finally:
            self._let_go(running, alarm)
        return running.tree

    async def _log(self, running: RunningSearch) -> None:
        """Grade the answer and log the tree."""
        tree, idempotency = running.tree, running.idempotency
        await grade_answer(tree, running.search.task, self.verdict_seconds, running.search.over)
        answer = await asyncio.to_thread(self._kept, running) if idempotency is not None else None
        try:
            await self.spool.append(tree, running.key_id, answer)
        except SearchFailed:
            answer = None  # it went with its tree: nothing is left to replay
            raise
        finally:
            if idempotency is not None and answer is None:
                await idempotency.abandon(self.log, running.key_id, running.id)
        logger.info(
            "search %s key=%s algorithm=%s status=%s reason=%s tokens=%d nodes=%d seconds=%.3f",
            *(running.id, running.key_id or "-", tree.params.algorithm, tree.status, tree.stop_reason),
            *(tree.usage.completion_tokens, len(tree.nodes), tree.usage.seconds),
        )

    def _kept(self, running: RunningSearch) -> KeptAnswer | None:
        """The answer to replay under the search's Idempotency-Key, or `None` if there is none to keep."""
        if running.lapsed is not None:
            return None
        try:
            return kept(running.idempotency, running.tree, running.key_id)
        except Exception:  # an answer that cannot be written is no reason to lose its tree
            logger.exception("the answer of search %s cannot be kept", running.id)
            return None

    def _let_go(self, running: RunningSearch, alarm: asyncio.TimerHandle) -> None:
        """Give back all that an ended search holds. A step that fails is logged, and the next one is taken."""
        tree, seconds = running.tree, self.clock() - running.started
        steps: tuple[Callable[[], object], ...] = (
            alarm.cancel,
            lambda: self.running.pop(tree.id),
            lambda: self._give_back(running.ticket),
            lambda: self._count(running, tree.usage.completion_tokens),
            lambda: self.metrics.ended(tree, seconds),
        )
        for step in steps:
            try:
                step()
            except Exception:
                logger.exception("a step after the end of search %s failed", running.id)

    def _give_back(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            self.admission.leave(ticket)

    def sample(self) -> None:
        """Count what running searches have generated by now, for the metrics."""
        for running in self.running.values():
            self._count(running, running.spent)

    def _count(self, running: RunningSearch, tokens: int) -> None:
        new, running.counted = tokens - running.counted, tokens
        self.metrics.generated(new)

    def find(self, given: str, caller: Caller) -> RunningSearch | None:
        """The running search of this id (a search's or its tree's) that the caller may see."""
        running = self.running.get(tree_id(given) or "")
        return running if running is not None and self.visible(running.key_id, caller) else None

    async def finished(self, given: str, caller: Caller) -> Tree:
        """The logged tree of this id. Raises `not_found`, also if it is another key's, and `log_unavailable` if it is
        not yet in the log."""
        return await asyncio.to_thread((await self._entry(given, caller)).tree)

    async def _entry(self, given: str, caller: Caller) -> Entry:
        """The logged tree of this id as it is stored. Raises as `finished` does, and `conflict` for a search that
        another server runs, or ran until a moment ago."""
        known = tree_id(given)
        if known is None:
            raise ServiceError(
                "not_found", f"{given[:60]!r} is not the id of a search or tree", param="search_id"
            )
        waiting = self.spool.owner(known)
        if waiting is not None and self.visible(waiting, caller):
            raise self.spool.unlogged(known)
        entry = await self.log.get(known, key_id=caller.owner_filter())
        if entry is not None:
            return entry
        key_id, keeper = await self.log.checkpoint_owner(known) or (None, None)
        if key_id is not None and self.visible(key_id, caller):
            if keeper in self.log.ended():
                await self.checkpoints.look()
                if (entry := await self.log.get(known, key_id=caller.owner_filter())) is not None:
                    return entry
            raise elsewhere(known)
        raise self.not_here(known) or _unknown(given)

    @staticmethod
    def visible(key_id: str, caller: Caller) -> bool:
        owner = caller.owner_filter()
        return owner is None or owner == key_id

    async def cancel(self, given: str, caller: Caller) -> Tree:
        """End a search and return its tree with the best answer so far. One that has ended is left as it is."""
        running = self.find(given, caller)
        if running is None:
            return await self.finished(given, caller)
        running.stop("cancelled", "client")
        return await running.logged()

    async def drain(self, grace: float) -> None:
        """Take no more searches; let the running ones go on for `grace` seconds, then stop, log and answer them."""
        self.admission.close()
        if self._lives:
            await asyncio.wait(self._lives, timeout=grace)
        self.stop_all("drained", "drain")
        while under_way := {*self._lives, *self.spool.writing}:
            done, _ = await asyncio.wait(under_way, timeout=LET_GO, return_when="FIRST_COMPLETED")
            if not done:
                self.spool.give_up()

    async def quiesce(self, grace: float) -> None:
        """With admission paused: let the running searches go on for `grace` seconds, then stop, log and answer them.

        Raises `EngineBusy` if admitted work has not let go `LET_GO` seconds after that."""
        deadline = self.clock() + grace
        while self.admission.running:
            over = self.clock() - deadline
            if over > LET_GO:
                raise EngineBusy(f"{len(self.admission.running)} searches did not end when they were told to")
            if over >= 0:
                self.stop_all("drained", "drain")
                for stop in self.stop_others:
                    stop()
            if self._lives:
                await asyncio.wait(self._lives, timeout=max(LOOK_EVERY, -over), return_when="FIRST_COMPLETED")
            else:  # let in and about to begin, or another kind of request
                await asyncio.sleep(LOOK_EVERY)

    def stop_all(self, status: Status, reason: StopReason) -> None:
        """Stop every running search."""
        for running in list(self.running.values()):
            running.stop(status, reason)

    def lapse(self, why: str) -> None:
        """Stop every running search and let none of them be answered; their trees are logged."""
        for running in self.running.values():
            running.lapsed = running.lapsed or why
        self.stop_all("drained", "drain")

    async def finish_all(self, seconds: float) -> None:
        """Wait for the running searches to end by themselves, as they do when an engine dies."""
        if self._lives:
            await asyncio.wait(self._lives, timeout=seconds)


def elsewhere(tree_id: str) -> ServiceError:
    return ServiceError(
        "conflict",
        f"{search_id(tree_id)} runs on another server, or ran on one that has just ended; ask again later",
        param="search_id",
        retry_after=ELSEWHERE,
    )


def _unknown(given: str) -> ServiceError:
    return ServiceError("not_found", f"no search or tree {given[:60]!r}", param="search_id")


def _taken_on(tree_id: str, why: str) -> ServiceError:
    return ServiceError("conflict", f"{search_id(tree_id)} {why}", param="search_id")


def close_failed(tree: Tree, error: Exception) -> None:
    """Mark a tree whose search raised, so that it is logged like any other."""
    if tree.status == "running":
        tree.status, tree.stop_reason = "failed", "error"
    tree.error = tree.error or f"{type(error).__name__}: {error}"[:500]
    for node in tree.nodes:
        node.in_flight = node.expanding = 0
