"""Many problems at once, every method on each; rows go to disk as they come and trees are dropped as they are read.

Problems come first and methods second, so that the running accuracies compare the methods on the same problems and a
run that is stopped early still says something about all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from ramify.evaluation.methods import Method
from ramify.evaluation.reading import graded, rows_of
from ramify.evaluation.rows import Row, refused_row
from ramify.rewards.registry import task
from ramify.rewards.verifier import Example
from ramify.search.tree import Tree, derive_seed


class SearchFailed(RuntimeError):
    """A search ended without its result: the run stops, and can be resumed once the cause is gone."""


class ProblemRefused(Exception):
    """A problem cannot be asked: it is too long, say. The others can."""


class Backend(Protocol):
    """Grows trees."""

    async def grow(self, problem: Example, method: Method, tokens: int, seed: int) -> Tree:
        """Search one problem under a budget of `tokens` generated tokens. Raises `SearchFailed`, `ProblemRefused`."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One tree to grow, and every row to be read off it."""

    index: int
    """The problem's place in the run, from 0; rows name problems by it."""
    problem: Example
    methods: tuple[Method, ...]
    """Methods that all grow this tree and choose from it by different rules."""
    budgets: tuple[int, ...]
    """The tree grows under the largest."""

    @property
    def rows(self) -> set[tuple[int, str, int]]:
        return {(self.index, m.name, b) for m in self.methods for b in self.budgets}


def jobs(
    problems: Sequence[Example],
    methods: Sequence[Method],
    budgets: Sequence[int],
    done: frozenset[tuple[int, str, int]] = frozenset(),
) -> Iterator[Job]:
    """Yield every tree still to be grown, problem by problem; `done`: (problem, method, budget) of rows there."""
    # Methods that grow the same tree share a run, and all budgets do if a run under the largest can be read off.
    by_tree = groupby(sorted(methods, key=lambda m: m.tree_key), key=lambda m: m.tree_key)
    sharing = [tuple(group) for _, group in by_tree]
    ladder = tuple(sorted(set(budgets)))
    for index, problem in enumerate(problems):
        for group in sharing:
            for rungs in [ladder] if group[0].reads_off else [(budget,) for budget in ladder]:
                job = Job(index, problem, group, rungs)
                if not job.rows <= done:
                    yield job


def seed_of(problem: Example, seed: int) -> int:
    """Return a problem's own search seed, of 53 bits as in requests.

    It depends on the problem itself, not on its place, the method or the budget: methods that begin with the same draws
    get the same draws, which pairs them the better.
    """
    return derive_seed(seed, "problem", problem.id) >> 10


async def run(
    backend: Backend,
    work: Iterator[Job],
    *,
    seed: int,
    concurrency: int,
    observe: Callable[[Sequence[Row]], None],
) -> None:
    """Grow and read every job, `concurrency` at a time, and hand each job's rows to `observe`.

    A refused problem has rows that say so. The first failure ends the run; what was observed until then stands.
    """

    async def worker() -> None:
        for job in work:
            observe(await _rows(backend, job, seed))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def _rows(backend: Backend, job: Job, seed: int) -> list[Row]:
    problem = job.problem
    try:
        tree = await backend.grow(problem, job.methods[0], max(job.budgets), seed_of(problem, seed))
    except ProblemRefused as reason:
        return [
            refused_row(index, problem.group, method, budget, str(reason))
            for index, method, budget in sorted(job.rows)
        ]
    if tree.status != "complete":
        raise SearchFailed(
            f"the search of {problem.id!r} ended {tree.status}: {tree.error or tree.stop_reason}"
        )
    verdicts = await graded(tree, task(problem.task, problem.problem))
    return rows_of(tree, verdicts, job.methods, job.budgets, problem=job.index, group=problem.group)


class Tally:
    """Running accuracies, for people who are waiting."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], int] = {}
        self.right: dict[tuple[str, int], int] = {}

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.refused is not None:
                continue
            cell = row.method, row.budget
            self.seen[cell] = self.seen.get(cell, 0) + 1
            self.right[cell] = self.right.get(cell, 0) + row.correct

    def accuracies(self) -> Mapping[tuple[str, int], float]:
        return {cell: self.right[cell] / seen for cell, seen in self.seen.items()}
