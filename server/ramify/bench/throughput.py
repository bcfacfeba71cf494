"""Searching against the engines' own limit: searches recorded, then the same engine work with nothing to wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import psutil

from ramify.engines import Engines
from ramify.evaluation.backends import LocalBackend
from ramify.evaluation.methods import Method
from ramify.evaluation.problems import Problem
from ramify.evaluation.runner import SearchFailed, seed_of


@dataclass(frozen=True, slots=True)
class SearchRun:
    """Searches run through a number of slots."""

    slots: int
    searches: int
    seconds: float
    cpu_seconds: float
    """Processor time of this process, the engines' processes left out."""
    simulations: int
    tokens: int
    """Generated."""
    scored: int
    requests: int
    """Engine requests."""
    steps: Mapping[str, int]
    """Steps that each engine took, by its role."""


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """The same engine requests, all at once."""

    seconds: float
    cpu_seconds: float
    tokens: int
    scored: int
    requests: int
    steps: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of the searches and the replay of its requests."""

    searched: SearchRun
    replayed: ReplayRun

    @property
    def ratio(self) -> float:
        return self.searched.seconds / self.replayed.seconds

    @property
    def own_cpu(self) -> float:
        """The search's own share of one core while it runs: processor time beyond what the engines' client needs."""
        return (self.searched.cpu_seconds - self.replayed.cpu_seconds) / self.searched.seconds


@dataclass(frozen=True, slots=True)
class Throughput:
    """Several pairs, interleaved."""

    pairs: tuple[Pair, ...]

    @property
    def ratio(self) -> float:
        """Median of search time over replay time."""
        return median(pair.ratio for pair in self.pairs)

    @property
    def own_cpu(self) -> float:
        return median(pair.own_cpu for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Load:
    """What is searched."""

    problems: Sequence[Problem]
    method: Method
    tokens: int
    """Budget of one search."""
    slots: int


async def throughput(
    backend: LocalBackend, load: Load, pairs: int, tell: Callable[[str], None]
) -> Throughput:
    """`pairs` times: search and record, then replay; prefix caches are cleared before each."""
    tell("warming up")
    await searched(backend, Load(load.problems[: load.slots], load.method, load.tokens, load.slots), seed=-1)
    found = []
    for i in range(pairs):
        tell(f"pair {i + 1} of {pairs}: searching")
        run = await searched(backend, load, seed=i)
        tell(f"pair {i + 1} of {pairs}: replaying")
        found.append(Pair(run, await replayed(backend)))
        tell(f"pair {i + 1} of {pairs}: ratio {found[-1].ratio:.3f}")
    return Throughput(tuple(found))


async def searched(backend: LocalBackend, load: Load, seed: int) -> SearchRun:
    """Run the load's searches; their engine requests stay with the engines' recorder. Raises `SearchFailed`."""
    engines = backend.local.engines
    await engines.reset_prefix_caches()
    engines.recorder.take()
    engines.recorder.on = True
    before = steps_of(engines)
    started, cpu = time.perf_counter(), own_cpu_seconds()
    simulations = await _through_slots(backend, load, seed)
    seconds, cpu = time.perf_counter() - started, own_cpu_seconds() - cpu
    engines.recorder.on = False
    requests = engines.recorder.requests
    return SearchRun(
        slots=load.slots,
        searches=len(load.problems),
        seconds=seconds,
        cpu_seconds=cpu,
        simulations=simulations,
        tokens=sum(request.tokens for request in requests),
        scored=sum(sum(request.judges) for request in requests if request.kind == "score"),
        requests=len(requests),
        steps=steps_since(before, engines),
    )


async def replayed(backend: LocalBackend) -> ReplayRun:
    """Send what was recorded again, all at once."""
    engines = backend.local.engines
    await engines.reset_prefix_caches()
    cpu, before = own_cpu_seconds(), steps_of(engines)
    result = await engines.replay(engines.recorder.take())
    return ReplayRun(
        seconds=result.seconds,
        cpu_seconds=own_cpu_seconds() - cpu,
        tokens=result.generated_tokens,
        scored=result.scored_sequences,
        requests=result.requests,
        steps=steps_since(before, engines),
    )


async def _through_slots(backend: LocalBackend, load: Load, seed: int) -> int:
    """Simulations of all searches."""
    done = 0
    left: Iterable[Problem] = iter(load.problems)

    async def slot() -> None:
        nonlocal done
        for problem in left:
            tree = await backend.grow(problem, load.method, load.tokens, seed_of(problem, seed))
            if tree.status != "complete":
                raise SearchFailed(f"the search of {problem.id!r} ended {tree.status}: {tree.error}")
            done += tree.usage.simulations

    async with asyncio.TaskGroup() as group:
        for _ in range(load.slots):
            group.create_task(slot())
    return done


def steps_of(engines: Engines) -> dict[str, int]:
    """Steps of each engine until now."""
    figures = engines.stats()
    return {name[: -len("_steps")]: int(figures[name]) for name in figures if name.endswith("_steps")}


def steps_since(before: Mapping[str, int], engines: Engines) -> dict[str, int]:
    return {role: steps - before[role] for role, steps in steps_of(engines).items()}


def own_cpu_seconds() -> float:
    """Processor time of this process and its threads, children left out."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
