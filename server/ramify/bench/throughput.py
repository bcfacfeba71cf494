"""Searching against the engines' own limit: searches recorded, then the same engine work with nothing to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import psutil

from ramify.bench.recording import recorded, replay, steps_of
from ramify.engines import Engines
from ramify.engines.ports import Recording
from ramify.evaluation.backends import LocalBackend
from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import Method
from ramify.evaluation.runner import ProblemRefused, SearchFailed, seed_of
from ramify.races import all_of
from ramify.rewards.verifier import Example


@dataclass(frozen=True, slots=True)
class BenchRun:
    """Searches run `slots` at a time, or the replay of their engine calls: then times and steps are the replay's."""

    slots: int
    searches: int
    seconds: float
    cpu_seconds: float
    """Processor time of this process, the engines' processes left out."""
    simulations: int
    tokens: int
    """Generated."""
    scored: int
    """Sequences judged."""
    requests: int
    """Calls of the engines."""
    steps: Mapping[str, int]
    """Steps that each engine took, by its role."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of the searches and the replay of its engine calls."""

    searched: BenchRun
    replayed: BenchRun

    @property
    def ratio(self) -> float:
        """Search time over replay time."""
        return self.searched.seconds / self.replayed.seconds

    @property
    def own_cpu(self) -> float:
        """The search's own share of one core while it runs: processor time beyond what the engines' client needs."""
        return (self.searched.cpu_seconds - self.replayed.cpu_seconds) / self.searched.seconds


@dataclass(frozen=True, slots=True)
class Load:
    """The searches of a run."""

    problems: Sequence[Example]
    method: Method
    tokens: int
    """Budget of one search."""
    slots: int


async def throughput(
    backend: LocalBackend, load: Load, pairs: int, tell: Callable[[str], None]
) -> list[Pair]:
    """`pairs` times: search and record, then replay; prefix caches are cleared before each."""
    tell("warming up")
    await searched(backend, replace(load, problems=load.problems[: load.slots]), seed=-1)
    done = []
    for i in range(pairs):
        tell(f"pair {i + 1} of {pairs}: searching")
        run, recording = await searched(backend, load, seed=i)
        tell(f"pair {i + 1} of {pairs}: replaying")
        done.append(Pair(run, await replayed(backend, run, recording)))
        tell(f"pair {i + 1} of {pairs}: ratio {done[-1].ratio:.3f}")
    return done


async def searched(backend: LocalBackend, load: Load, seed: int) -> tuple[BenchRun, Recording]:
    """Run the load's searches and record their engine calls. Raises `SearchFailed`."""
    engines = backend.engines
    await engines.reset_prefix_caches()
    before = steps_of(engines)
    started, cpu = time.perf_counter(), own_cpu_seconds()
    with recorded(engines) as recording:
        simulations, scored = await _through_slots(backend, load, seed)
    run = BenchRun(
        slots=load.slots,
        searches=len(load.problems),
        seconds=time.perf_counter() - started,
        cpu_seconds=own_cpu_seconds() - cpu,
        simulations=simulations,
        tokens=recording.tokens,
        scored=scored,
        requests=recording.calls,
        steps=_steps_since(before, engines),
    )
    return run, recording


async def replayed(backend: LocalBackend, run: BenchRun, recording: Recording) -> BenchRun:
    """Send the engine calls of a run again, all at once."""
    engines = backend.engines
    await engines.reset_prefix_caches()
    cpu, before = own_cpu_seconds(), steps_of(engines)
    seconds = await replay(recording, engines)
    cpu = own_cpu_seconds() - cpu
    return replace(run, seconds=seconds, cpu_seconds=cpu, steps=_steps_since(before, engines))


async def _through_slots(backend: LocalBackend, load: Load, seed: int) -> tuple[int, int]:
    """Return the simulations and the judged sequences of all searches. Raises `SearchFailed`."""
    simulations = scored = 0
    budget = Budget("tokens", load.tokens)
    left: Iterable[Example] = iter(load.problems)

    async def slot() -> None:
        nonlocal simulations, scored
        for problem in left:
            try:
                grown = await backend.grow(problem, load.method, budget, seed_of(problem, seed))
            except ProblemRefused as error:
                raise SearchFailed(f"{problem.id!r} cannot be asked: {error}") from error
            tree = grown.tree
            if tree.status != "complete":
                raise SearchFailed(f"the search of {problem.id!r} ended {tree.status}: {tree.error}")
            simulations += tree.usage.simulations
            scored += tree.usage.scored_sequences

    await all_of(slot() for _ in range(load.slots))
    return simulations, scored


def _steps_since(before: Mapping[str, int], engines: Engines) -> dict[str, int]:
    return {role: steps - before[role] for role, steps in steps_of(engines).items()}


def own_cpu_seconds() -> float:
    """Processor time of this process and its threads, children left out."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
