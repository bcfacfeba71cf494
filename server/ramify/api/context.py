"""The context that every route may use: the server's parts, put together once by `server` or by a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

import ramify
from ramify.api.names import ModelNames, aliases_of
from ramify.engines import Serving
from ramify.service.admission import Admission
from ramify.service.batches import Batches
from ramify.service.checkpoints import Checkpoints
from ramify.service.completion_spec import CompletionPreparer
from ramify.service.completions import Completions
from ramify.service.fleet import Fleet
from ramify.service.keys import Caller, Keyring
from ramify.service.metrics import Metrics
from ramify.service.ports import Engines
from ramify.service.readiness import Readiness
from ramify.service.releases import Releases
from ramify.service.retention import Retention
from ramify.service.search_preparation import SearchPreparer
from ramify.service.searches import Searches
from ramify.service.serving import judges_by_itself, release_store_of, serving_of
from ramify.service.spool import Spool
from ramify.service.standing import Standing
from ramify.settings import Settings
from ramify.treelog import TreeLog
from ramify.weights import Release


@dataclass(frozen=True, slots=True)
class Context:
    """The server's parts, but for what starts and stops them."""

    settings: Settings
    keyring: Keyring
    engines: Engines
    names: ModelNames
    log: TreeLog
    searches: Searches
    batches: Batches
    releases: Releases
    completions: Completions
    readiness: Readiness
    retention: Retention
    metrics: Metrics
    fleet: Fleet | None = None
    """This replica in its fleet; `None`: it serves by itself."""

    @property
    def serving(self) -> Serving:
        """The model and the release that are served at this moment."""
        return self.engines.serving


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


# FastAPI calls a dependency that is not a coroutine in a thread, which costs a busy server more than a whole refusal.
async def _context(request: Request) -> Context:
    return context_of(request)


async def _caller(request: Request) -> Caller:
    """Return the caller, authenticated by `ScopedRoute` before the handler runs."""
    caller: Caller = request.state.caller
    return caller


ContextDep = Annotated[Context, Depends(_context)]
CallerDep = Annotated[Caller, Depends(_caller)]


def assemble(
    settings: Settings,
    engines: Engines,
    log: TreeLog,
    *,
    base: Release | None = None,
    unserved: str | None = None,
    fleet: Fleet | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> Context:
    """Put a server's parts together and have its metrics watch them.

    base: the release that is served until another is activated; `None` if the models served are no release. unserved:
    why nobody is answered until a release is activated. fleet: the one that this server has joined, whose release the
    engines hold. clock: seconds, monotonic. now: Unix seconds.
    """
    metrics = Metrics()
    standing = Standing(clock, unserved)
    admission = Admission(settings.admission, clock, metrics.rejected, standing)
    preparer = SearchPreparer(engines, settings.limits, now, settings.replica)
    spool = Spool(log, settings.spool, clock, metrics.log_failed)
    checkpoints = Checkpoints(log, settings.checkpoints.seconds, clock)
    searches = Searches(
        *(engines, log, preparer, admission, metrics, spool, checkpoints),
        settings.limits.verdict_seconds,
        clock,
    )
    # A policy's own server decides for itself whether it can read calls of tools.
    tools = settings.engine.tool_parser is not None or settings.policy_server.url is not None
    plain = CompletionPreparer(engines, settings.limits, tools=tools, replica=settings.replica)
    completions = Completions(engines, plain, settings.limits, admission, metrics, clock)
    searches.stop_others.append(completions.stop_all)
    context = Context(
        settings=settings,
        keyring=Keyring(settings.auth.all_keys()),
        engines=engines,
        names=ModelNames(engines, aliases_of(settings)),
        log=log,
        searches=searches,
        batches=Batches(searches),
        completions=completions,
        releases=Releases(
            engines,
            log,
            searches,
            metrics,
            clock,
            serving_of=lambda release: serving_of(release, settings),
            root=settings.weights,
            store=release_store_of(settings),
            base=base,
            judged_apart=not judges_by_itself(settings),
            options=settings.engine,
            alone=fleet is None,
        ),
        readiness=Readiness(engines, settings.probe, clock, lambda: searches.draining, standing),
        retention=Retention(log, settings.retention, settings.objects.grace_seconds, metrics.expired, now),
        metrics=metrics,
        fleet=fleet,
    )
    if fleet is not None:
        spool.proven = fleet.writes
        fleet.attach(context.releases, searches, completions)
    _watch(context)
    return context


def _watch(context: Context) -> None:
    """Have the metrics read the parts' own figures."""
    metrics, searches, admission = context.metrics, context.searches, context.searches.admission
    metrics.serving(ramify.__version__, lambda: context.engines.serving)
    metrics.gauge(
        "ramify_searches_running",
        "Searches that are admitted and not yet logged.",
        lambda: len(searches.running),
    )
    completions = context.completions
    metrics.gauge(
        "ramify_completions_running",
        "Plain completions that are admitted and have not ended.",
        lambda: len(completions.running),
    )
    metrics.gauge(
        "ramify_searches_waiting",
        "Searches and completions that wait to be admitted.",
        lambda: admission.waiting,
    )
    metrics.gauge(
        "ramify_reserved_tokens",
        "Tokens that running searches may still generate.",
        lambda: admission.reserved,
    )
    metrics.gauge("ramify_log_queue_depth", "Writes that are not yet committed.", lambda: context.log.pending)
    metrics.gauge(
        "ramify_log_spooled_searches", "Finished searches that wait for the log.", lambda: len(searches.spool)
    )
    retention = context.retention
    metrics.gauge("ramify_log_trees", "Trees in the log.", lambda: retention.figures.trees)
    metrics.gauge(
        "ramify_log_bytes",
        "Bytes of the bodies of logged trees, compressed.",
        lambda: retention.figures.bytes,
    )
    metrics.gauge(
        "ramify_log_oldest_seconds", "Age of the oldest logged tree.", lambda: retention.oldest_seconds
    )
    metrics.watch("ramify_engine", context.engines.stats)
    if context.fleet is not None:
        metrics.watch("ramify_fleet", context.fleet.figures)
