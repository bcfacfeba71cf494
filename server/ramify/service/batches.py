"""Batches: searches that share a budget, admitted as one, each run, stopped, logged and counted like any other.

A batch holds one reservation, for the tokens that all of its searches may generate, until the last tree is logged. Its
Idempotency-Key keeps the ids of the trees, and the answer is read from the log again: so nothing is kept twice, and a
tree that is deleted is gone from there too.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ramify.engines import Serving
from ramify.search.batch import Batch, check_turns
from ramify.search.params import ParamError
from ramify.search.records import Status, StopReason
from ramify.search.tree import Tree
from ramify.service.admission import Ticket
from ramify.service.errors import BadRequest, ServiceError, over
from ramify.service.idempotency import IdempotencyKey, ReplayedAnswer, once
from ramify.service.keys import Caller
from ramify.service.search_preparation import PreparedSearch, SearchPreparer
from ramify.service.search_spec import BatchSpec, SearchSpec
from ramify.service.search_view import BATCH, failure, uuid7
from ramify.service.searches import RunningSearch, Searches
from ramify.treelog import LogError, kept_answer

logger = logging.getLogger(__name__)
OF_ONE_PROMPT = ("prompt", "messages", "task")
"""Fields that each prompt of a batch has for itself."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Trees that have only their roots, and what they share."""

    id: str
    searches: tuple[PreparedSearch, ...]
    batch: Batch
    tokens: int
    """Tokens that all of them may generate."""

    @property
    def deadline(self) -> float:
        """Seconds from the request's arrival."""
        return self.searches[0].deadline

    @property
    def serving(self) -> Serving:
        """The release that they were prepared for."""
        return self.searches[0].serving


@dataclass(eq=False, slots=True)
class RunningBatch:
    """A batch that was admitted and is not yet logged whole."""

    id: str
    key_id: str
    searches: tuple[RunningSearch, ...]
    """In the request's order."""
    ticket: Ticket
    idempotency: IdempotencyKey | None
    life: asyncio.Task[None] | None = None
    """Task that ends once every tree is logged, or lost."""

    def stop(self, status: Status, reason: StopReason) -> None:
        """End every search with the best answer so far."""
        for search in self.searches:
            search.stop(status, reason)

    async def logged(self) -> list[Tree]:
        """Return the trees once all of them are in the log. Cancelling the wait leaves the searches alone.

        Raises `ServiceError` if one is not, and if none has an answer to send."""
        assert self.life is not None
        await asyncio.shield(self.life)
        trees = [await search.logged() for search in self.searches]
        problems = [failure(one.tree, one.search.failure) for one in self.searches]
        if problems[0] is not None and None not in problems:
            raise problems[0]
        return trees


@dataclass(frozen=True, slots=True)
class ReplayedBatch:
    """The trees of the batch that an earlier request with this key ran."""

    id: str
    trees: list[Tree]


@dataclass(eq=False, slots=True)
class Batches:
    """Every running batch of this server. All calls on one event loop."""

    searches: Searches
    running: dict[str, RunningBatch] = field(default_factory=dict)
    """By id."""

    async def start(
        self, spec: BatchSpec, caller: Caller, idempotency: IdempotencyKey | None = None
    ) -> RunningBatch | ReplayedBatch:
        """Admit a batch and start its searches. Cancelled while it waits, nothing was started and nothing is logged.

        Raises `ServiceError`."""
        arrived = self.searches.clock()
        self.searches.check(caller, idempotency)
        if not caller.train:
            spec = replace(spec, searches=tuple(replace(one, train=False) for one in spec.searches))
        prepared = prepare(self.searches.preparer, spec)
        started = await once(
            self.searches.log,
            caller.key_id,
            idempotency,
            prepared.id,
            prepared.deadline,
            lambda: self._admit(spec, prepared, caller, idempotency, arrived),
        )
        return await self._replayed(started, caller) if isinstance(started, ReplayedAnswer) else started

    async def _replayed(self, answer: ReplayedAnswer, caller: Caller) -> ReplayedBatch:
        try:
            trees = [await self.searches.finished(tree, caller) for tree in json.loads(answer.body)]
        except ServiceError as error:
            if error.code == "not_found":
                error.message = (
                    f"{answer.search_id} was answered under this key, and a tree of it was deleted"
                )
                error.param = "Idempotency-Key"
            raise
        return ReplayedBatch(answer.search_id, trees)

    def cancel(self, given: str, caller: Caller) -> RunningBatch:
        """End every search of a running batch, and return it. Raises `ServiceError` (`not_found`)."""
        running = self.running.get(given)
        if running is None or not self.searches.visible(running.key_id, caller):
            raise ServiceError(
                "not_found", f"no batch {given[:60]!r} runs: it has ended, or is not yours", param="batch_id"
            )
        running.stop("cancelled", "client")
        return running

    async def _admit(
        self,
        spec: BatchSpec,
        prepared: PreparedBatch,
        caller: Caller,
        idempotency: IdempotencyKey | None,
        arrived: float,
    ) -> RunningBatch:
        searches, deadline = self.searches, prepared.deadline
        ticket = await searches.enter(caller, prepared.tokens, deadline - (searches.clock() - arrived))
        # No await from here on until the batch's own task holds the ticket.
        try:
            if prepared.serving is not searches.engines.serving:
                # Another release was activated while it waited: that one's defaults hold.
                prepared = prepare(searches.preparer, spec, prepared.id)
            members = tuple(searches.opened(one, caller, prepared.batch, None) for one in prepared.searches)
        except BaseException:
            searches.admission.leave(ticket)
            raise
        running = RunningBatch(prepared.id, caller.key_id, members, ticket, idempotency)
        for member in members:
            searches.begin(member, deadline, searches.clock() - arrived)
        running.life = asyncio.create_task(self._live(running), name=running.id)
        searches.watch(running.life)
        self.running[running.id] = running
        return running

    async def _live(self, running: RunningBatch) -> None:
        """Wait until every search is logged, keep what a repeated request is answered with, and let go."""
        try:
            await asyncio.wait([search.life for search in running.searches if search.life is not None])
            if running.idempotency is not None:
                await self._keep(running, running.idempotency)
        finally:
            del self.running[running.id]
            self.searches.admission.leave(running.ticket)

    async def _keep(self, running: RunningBatch, idempotency: IdempotencyKey) -> None:
        """Keep the trees' ids under the key if every search ran to its own end, else free the key."""
        log = self.searches.log
        trees = [search.tree for search in running.searches]
        if all(_kept(search) for search in running.searches):
            body = json.dumps([tree.id for tree in trees]).encode()
            try:
                await log.finish(kept_answer(running.key_id, idempotency.key, running.id, body))
            except LogError as error:
                logger.warning("the answer of batch %s cannot be kept: %s", running.id, error)
        else:
            await idempotency.abandon(log, running.key_id, running.id)


def _kept(search: RunningSearch) -> bool:
    """Tell whether a search ran to its own end, has an answer that may be sent, and is in the log."""
    assert search.life is not None
    logged = not search.life.cancelled() and search.life.exception() is None
    answered = search.lapsed is None and search.tree.answer is not None
    return logged and answered and search.tree.status in ("complete", "deadline")


def prepare(preparer: SearchPreparer, spec: BatchSpec, number: str | None = None) -> PreparedBatch:
    """Check a batch and fill in its defaults. number: its id, if it has one already. Raises `ServiceError` that names
    the field at fault."""
    caps = preparer.caps
    if len(spec.searches) > caps.batch_prompts:
        raise BadRequest(
            f"has {len(spec.searches)} prompts; this server takes at most {caps.batch_prompts}",
            param="prompts",
        )
    if spec.tokens is not None and spec.tokens > caps.budget_tokens:
        raise over("budget.tokens", spec.tokens, caps.budget_tokens)
    if spec.seconds is not None and spec.seconds > caps.deadline_seconds:
        raise over("budget.seconds", spec.seconds, caps.deadline_seconds)
    tokens = spec.tokens or caps.budget_tokens
    prepared = tuple(_prepared(preparer, spec, i, tokens) for i in range(len(spec.searches)))
    _require_answers(prepared, tokens)
    number = number or BATCH + uuid7(preparer.now(), preparer.replica)
    for one in prepared:
        one.tree.batch = number
    batch = Batch(tokens, parallel=spec.parallel, least_gain=spec.least_gain)
    return PreparedBatch(number, prepared, batch, tokens)


def _prepared(preparer: SearchPreparer, spec: BatchSpec, index: int, tokens: int) -> PreparedSearch:
    """Prepare one search of a batch, which may spend all of the `tokens` if its own limits let it."""
    one = spec.searches[index]
    limited = {**one.search, "budget": _limits(one, spec, tokens)}
    try:
        prepared = preparer.prepare(replace(one, search=limited, share=tokens // len(spec.searches)))
        check_turns(prepared.tree.params)
    except ParamError as error:
        raise BadRequest(error.message, param=f"search.{error.field}") from error
    except ServiceError as error:
        if error.param is not None and error.param.partition(".")[0] in OF_ONE_PROMPT:
            error.param = f"prompts.{index}.{error.param}"
        raise
    return prepared


def _limits(one: SearchSpec, spec: BatchSpec, tokens: int) -> dict[str, float]:
    """Return one search's own limits, within those that are shared."""
    own = dict(one.search.get("budget", {}))
    if "seconds" in own:
        raise BadRequest("is for single searches: give budget.seconds", param="search.budget.seconds")
    seconds = {} if spec.seconds is None else {"seconds": spec.seconds}
    return {**own, "tokens": min(tokens, own.get("tokens", tokens)), **seconds}


def _require_answers(prepared: Sequence[PreparedSearch], tokens: int) -> None:
    """Raise `BadRequest` unless the budget holds an answer of every prompt."""
    longest = [one.tree.sampling.max_tokens for one in prepared]
    if sum(longest) > tokens:
        raise BadRequest(
            f"is {tokens}; {len(longest)} prompts need {sum(longest)}, for an answer each of at most "
            f"{max(longest)} tokens (sampling.max_tokens)",
            param="budget.tokens",
        )
