"""What every route may use, put together once by `server` or by a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ramify.api.names import ModelNames
from ramify.service.judging import ValueJudge
from ramify.service.keys import Caller, Keyring
from ramify.service.metrics import Metrics
from ramify.service.plain import Completions
from ramify.service.ports import Engines, ServedModel
from ramify.service.readiness import Readiness
from ramify.service.releases import Releases
from ramify.service.retention import Retention
from ramify.service.searches import Searches
from ramify.settings import Settings
from ramify.treelog import TreeLog


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    keyring: Keyring
    engines: Engines
    model: ServedModel
    names: ModelNames
    log: TreeLog
    searches: Searches
    releases: Releases
    completions: Completions
    judge: ValueJudge
    readiness: Readiness
    retention: Retention
    metrics: Metrics


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


# FastAPI calls a dependency that is no coroutine in a thread, which takes a busy server longer than a whole refusal.
async def _context(request: Request) -> Context:
    return context_of(request)


async def _caller(request: Request) -> Caller:
    """Who asks, as `scopes` has found out before the route was entered."""
    caller: Caller = request.state.caller
    return caller


ContextDep = Annotated[Context, Depends(_context)]
CallerDep = Annotated[Caller, Depends(_caller)]
