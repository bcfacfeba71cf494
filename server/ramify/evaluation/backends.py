"""Who grows the trees of an evaluation: engines in this process, or a running server. Both ask for the same thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from ramify.evaluation.local import Local, open_release
from ramify.evaluation.methods import Method
from ramify.evaluation.problems import Problem
from ramify.evaluation.runner import SearchFailed, refusal
from ramify.search.codec import tree_from_dict
from ramify.search.protocols import GradingFailed, Task
from ramify.search.records import Verdict
from ramify.search.run import Search
from ramify.search.tree import Tree
from ramify.service.errors import ServiceError
from ramify.service.search_spec import Message, SearchSpec

ATTEMPTS = 20
"""Times that a search is offered to a busy server before the run gives up."""


class HiddenVerifier:
    """A task that will not say what is right: what an evaluated search is given, so that it cannot have looked."""

    def __init__(self, task: Task) -> None:
        self._task = task

    async def finals(self, texts: Sequence[str]) -> list[str | None]:
        return await self._task.finals(texts)

    async def grade(self, text: str) -> Verdict:
        raise GradingFailed(
            "an evaluated search is not told what is right, unless its grader is the verifier"
        )


class LocalBackend:
    """Engines in this process."""

    def __init__(self, local: Local) -> None:
        self.local = local

    async def grow(self, problem: Problem, method: Method, tokens: int, seed: int) -> Tree:
        """Search one problem. Raises `SearchFailed`, `ProblemRefused`."""
        ask = SearchSpec(
            prompt=None if problem.messages else problem.prompt,
            messages=tuple(Message(m.role, m.content) for m in problem.messages),
            task=problem.task,
            problem=problem.problem,
            search=_tupled(method.request(tokens)),
            sampling=_tupled(method.sampling),
            seed=seed,
            train=False,
        )
        try:
            prepared = self.local.preparer.prepare(ask)
        except ServiceError as error:
            raise refusal(f"method {method.name!r}: {error.message}", error.param) from error
        tree = prepared.tree
        task = prepared.task if tree.params.grader == "verifier" else HiddenVerifier(prepared.task)
        await Search(
            tree, self.local.engines.policy, self.local.engines.scorer, task, clock=time.monotonic
        ).run()
        return tree


def _tupled(table: Any) -> Any:
    """Lists as tuples, at any depth, as the records hold them."""
    if isinstance(table, dict):
        return {key: _tupled(value) for key, value in table.items()}
    return tuple(table) if isinstance(table, list) else table


class ServerBackend:
    """A running server, asked over HTTP."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def grow(self, problem: Problem, method: Method, tokens: int, seed: int) -> Tree:
        """Search one problem; waits while the server is busy. Raises `SearchFailed`, `ProblemRefused`."""
        body = {
            **_asked(problem),
            "task": {"name": problem.task, "problem": dict(problem.problem)},
            "search": method.request(tokens),
            "sampling": dict(method.sampling),
            "seed": seed,
            "include_tree": True,
            "train": False,
        }
        for _ in range(ATTEMPTS):
            try:
                response = await self._http.post("/v1/search", json=body)
            except httpx.HTTPError as error:
                raise SearchFailed(f"the connection to the server broke: {error!r}") from error
            if response.status_code not in (429, 503):
                break
            await asyncio.sleep(float(response.headers.get("retry-after", 1)))
        if response.status_code in (400, 413, 422):
            raise refusal(f"method {method.name!r}: the server answers {response.text}", _param(response))
        if response.is_error:
            raise SearchFailed(
                f"method {method.name!r}: the server answers {response.status_code}: {response.text}"
            )
        return tree_from_dict(response.json()["tree_document"])


def _param(response: httpx.Response) -> str | None:
    """The field that the server refuses; the prompt, if what was sent is too large as a whole."""
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return "prompt"
    try:
        param = response.json()["error"]["param"]
    except (ValueError, KeyError, TypeError):
        return None
    return param if isinstance(param, str) else None


def _asked(problem: Problem) -> dict[str, Any]:
    if problem.messages:
        return {"messages": [asdict(message) for message in problem.messages]}
    return {"prompt": problem.prompt}


@asynccontextmanager
async def start(release: Path | None) -> AsyncIterator[LocalBackend]:
    """Engines for a release (the shipped one by default), for the length of a `with`."""
    async with open_release(release) as local:
        yield LocalBackend(local)


@asynccontextmanager
async def connect(server: str, api_key: str | None) -> AsyncIterator[ServerBackend]:
    """A server, for the length of a `with`."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server, headers=headers, timeout=600.0, limits=limits) as http:
        yield ServerBackend(http)
