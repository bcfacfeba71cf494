"""Backends that grow the trees of an evaluation: engines in this process, or a running server.

Both take the same request, and both refuse it in the same two ways.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ramify.engines import Engines
from ramify.engines.progress import StartUp
from ramify.engines.start import Role
from ramify.engines.vllm import preload
from ramify.evaluation.budgets import Budget
from ramify.evaluation.metering import Bill, GrownTree, Meter, MeteredScorer, metered
from ramify.evaluation.methods import Method
from ramify.evaluation.runner import ProblemRefused, SearchFailed
from ramify.rewards.verifier import Example
from ramify.search.codec import tree_from_dict
from ramify.search.protocols import GradingFailed, Task
from ramify.search.records import Verdict
from ramify.search.run import Search
from ramify.search.scorers import Scorers
from ramify.service.errors import ServiceError
from ramify.service.search_preparation import SearchPreparer
from ramify.service.search_spec import SearchSpec
from ramify.service.serving import install, release_config
from ramify.settings import RequestCaps, load
from ramify.weights import load_release, shipped
from ramify_client import AsyncClient, RamifyError, ResponseError

MANY = 1_000_000
UNLIMITED = RequestCaps(
    budget_tokens=MANY, budget_nodes=MANY, budget_simulations=100_000, deadline_seconds=86_400.0
)
"""An evaluation is its own and only client."""
RETRIES, PATIENCE = 20, 3600.0
"""Further tries of one search on a busy server, and the seconds that all of them may take."""
REFUSED = (400, 413, 422)
"""Statuses of a request that is wrong, not of a server that cannot answer."""


class HiddenVerifier:
    """A task that does not grade: an evaluated search is given it, so that it cannot have looked."""

    def __init__(self, task: Task) -> None:
        self._task = task

    async def final(self, text: str) -> str | None:
        return await self._task.final(text)

    async def grade(self, text: str) -> Verdict:
        raise GradingFailed(
            "an evaluated search is not told what is right, unless its grader asks the verifier"
        )


@dataclass(frozen=True, slots=True)
class LocalBackend:
    """Engines in this process, and the preparation of a search that a server would do."""

    engines: Engines
    preparer: SearchPreparer
    meters: Mapping[Role, Meter] = field(default_factory=lambda: meters(("policy", "value")))
    """The meter of the policy's engine, and one of all that judge. Without an engine of their own, values are charged
    to the policy's."""

    async def grow(self, problem: Example, method: Method, budget: Budget, seed: int) -> GrownTree:
        """Search one problem. Raises `SearchFailed`, `ProblemRefused`."""
        spec = SearchSpec(
            prompt=None if problem.messages else problem.prompt,
            messages=problem.messages,
            task=problem.task,
            problem=problem.problem,
            search=_tupled(method.request(budget)),
            sampling=_tupled(method.sampling),
            seed=seed,
            defaults=method.bare,
            train=False,
        )
        try:
            prepared = self.preparer.prepare(spec)
        except ServiceError as error:
            raise refusal(f"method {method.name!r}: {error.message}", error.param) from error
        tree = prepared.tree
        task = prepared.task if tree.params.grader in ("verifier", "mixed") else HiddenVerifier(prepared.task)
        bills = {role: Bill(meter) for role, meter in self.meters.items()}
        policies = {name: metered(one, bills["policy"]) for name, one in self.engines.policies.items()}
        bill = bills.get("value", bills["policy"])
        scorer = Scorers.of(self.engines.scorer).wrapped(lambda one: MeteredScorer(one, bill))
        crowd = self.engines.crowd
        await Search(
            tree, policies, scorer, task, clock=time.monotonic, reviser=prepared.reviser, crowd=crowd
        ).run()
        value = bills["value"].seconds if "value" in bills else 0.0
        return GrownTree(tree, bills["policy"].seconds, value)

    async def forget(self) -> None:
        """Clear the engines' prefix caches."""
        await self.engines.reset_prefix_caches()


def meters(roles: Iterable[Role]) -> dict[Role, Meter]:
    """Return a meter for each role."""
    return {role: Meter(time.monotonic) for role in roles}


class ServerBackend:
    """A running server, asked over HTTP; a busy one is asked again."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def grow(self, problem: Example, method: Method, budget: Budget, seed: int) -> GrownTree:
        """Search one problem. Raises `SearchFailed`, `ProblemRefused`."""
        try:
            result = await self._client.search(
                None if problem.messages else problem.prompt,
                messages=[message.fields() for message in problem.messages] or None,
                task={"name": problem.task, "problem": dict(problem.problem)},
                search=method.request(budget),
                sampling=dict(method.sampling),
                seed=seed,
                defaults=method.bare,
                include_tree=True,
                train=False,
            )
        except ResponseError as error:
            message = f"method {method.name!r}: the server answers {error}"
            if error.status not in REFUSED:
                raise SearchFailed(message) from error
            # Only the prompt can make a request too large as a whole.
            raise refusal(message, "prompt" if error.status == 413 else error.param) from error
        except RamifyError as error:
            raise SearchFailed(f"method {method.name!r}: {error}") from error
        if result.tree_document is None:
            raise SearchFailed(f"method {method.name!r}: the server's answer is without its tree")
        return GrownTree(tree_from_dict(result.tree_document))

    async def judge(self) -> str | None:
        """Return what judges answers there: a value `model`, a value head on the `trunk`, a `scorer`; `None`: nothing.

        Raises `SearchFailed` if the server does not say."""
        try:
            return (await self._client.models()).data[0].value
        except RamifyError as error:
            raise SearchFailed(f"the server's models cannot be listed: {error}") from error

    async def forget(self) -> None:
        """Do nothing: a server's caches are its own."""


def refusal(message: str, param: str | None) -> Exception:
    """Turn a refused request into an error: the end of the run if the method's own fields are at fault, else of
    this one problem."""
    ours = (param or "search").partition(".")[0] in ("search", "sampling", "seed", "model")
    text = f"{param}: {message}" if param else message
    return SearchFailed(text) if ours else ProblemRefused(text)


def _tupled(table: Any) -> Any:
    """Turn lists into tuples, at any depth, as the records hold them."""
    if isinstance(table, dict):
        return {key: _tupled(value) for key, value in table.items()}
    return tuple(table) if isinstance(table, list) else table


@asynccontextmanager
async def start(release: Path | None) -> AsyncIterator[LocalBackend]:
    """Start the engines of a release (the shipped one by default), for the length of a `with`.

    Settings come from `RAMIFY_…` variables, as the server's do. Raises `BadSettings`, `BadExtension`,
    `ramify.weights.WeightsError` and `ramify.engines.EngineError`.
    """
    with StartUp() as startup:
        startup.tell("verifying the release")
        config = release_config(load_release(release or shipped()), install(load()))
        startup.tell("loading vLLM")
        preload(config.options.log_level, config.options.start_timeout, config.options.cache_dir)
        engines = await Engines.start(config, startup.tell)
    roles = ("policy", "value") if len(engines.by_role) > 1 else ("policy",)
    try:
        yield LocalBackend(
            engines,
            SearchPreparer(engines, UNLIMITED, time.time),
            meters(roles),
        )
    finally:
        await engines.close()


@asynccontextmanager
async def connect(server: str, api_key: str | None) -> AsyncIterator[ServerBackend]:
    """Connect to a server, for the length of a `with`."""
    # As many connections as searches: `--concurrency` is the limit.
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None))
    async with AsyncClient(
        server, api_key, timeout=PATIENCE, max_retries=RETRIES, transport=transport
    ) as client:
        yield ServerBackend(client)
