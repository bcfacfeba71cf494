"""Many problems at once, every method on each; rows go to disk as they come and trees are dropped as they are read.

At equal tokens all methods run together: problems come first and methods second, so that the running accuracies compare
the methods on the same problems and a run that is stopped early still says something about all of them. At equal
seconds methods that run together would take each other's time. So each has the machine to itself, for one block of
problems at a time, and the methods take turns at every block: what else the machine does meets all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from ramify.evaluation.budgets import Budget, Unit
from ramify.evaluation.metering import GrownTree
from ramify.evaluation.methods import Method
from ramify.evaluation.reading import AnswerGrades, graded, rows_of
from ramify.evaluation.rows import Row, refused_row
from ramify.races import all_of
from ramify.rewards.registry import task
from ramify.rewards.verifier import Example
from ramify.search.tree import derive_seed


class SearchFailed(RuntimeError):
    """A search ended without its result: the run stops, and can be resumed once the cause is gone."""


class ProblemRefused(Exception):
    """A problem cannot be asked: it is too long, say. The others can."""


class Backend(Protocol):
    """Grows trees."""

    async def grow(self, problem: Example, method: Method, budget: Budget, seed: int) -> GrownTree:
        """Search one problem. Raises `SearchFailed`, `ProblemRefused`."""
        ...

    async def forget(self) -> None:
        """Clear what earlier searches left in the engines' caches, if that can be done. No search is running."""
        ...


Cell = tuple[int, str, Budget]
"""The problem, the method and the budget of one row."""
BLOCK = 2
"""Problems of one block on the clock, as a multiple of those searched at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """One tree to grow, and every row to be read off it."""

    index: int
    """The problem's place in the run, from 0; rows name problems by it."""
    problem: Example
    methods: tuple[Method, ...]
    """Methods that all grow this tree and choose from it by different rules."""
    budgets: tuple[Budget, ...]
    """All of one unit. The tree grows under the largest."""

    @property
    def rows(self) -> set[Cell]:
        return {(self.index, m.name, b) for m in self.methods for b in self.budgets}


def schedule(
    problems: Sequence[Example],
    methods: Sequence[Method],
    budgets: Sequence[Budget],
    concurrency: int,
    done: Collection[Cell] = frozenset(),
) -> list[list[Job]]:
    """Return every tree still to be grown, in blocks that run one after another; `done`: rows that are there."""
    tokens = sorted(b for b in budgets if b.unit == "tokens")
    seconds = sorted(b for b in budgets if b.unit == "seconds")
    blocks = [list(_together(problems, methods, tokens)), *_in_turns(problems, methods, seconds, concurrency)]
    there = set(done)
    left = ([job for job in block if not job.rows <= there] for block in blocks)
    return [block for block in left if block]


def _together(
    problems: Sequence[Example], methods: Sequence[Method], ladder: Sequence[Budget]
) -> Iterator[Job]:
    """Yield the jobs at equal tokens, problem by problem. All budgets share a run under the largest if it can be read
    off."""
    if not ladder:
        return
    for index, problem in enumerate(problems):
        for group in _sharing(methods, "tokens"):
            for rungs in [ladder] if group[0].reads_off else [(budget,) for budget in ladder]:
                yield Job(index, problem, group, tuple(rungs))


def _in_turns(
    problems: Sequence[Example], methods: Sequence[Method], ladder: Sequence[Budget], concurrency: int
) -> Iterator[list[Job]]:
    """Yield the blocks at equal seconds: the same few problems under each method and budget, each first in its turn."""
    arms = [(group, budget) for budget in ladder for group in _sharing(methods, "seconds")]
    size, numbered = BLOCK * concurrency, list(enumerate(problems))
    for turn, first in enumerate(range(0, len(problems), size)):
        few = numbered[first : first + size]
        for i in range(len(arms)):
            group, budget = arms[(turn + i) % len(arms)]
            yield [Job(index, problem, group, (budget,)) for index, problem in few]


def _sharing(methods: Sequence[Method], unit: Unit) -> list[tuple[Method, ...]]:
    """Return the methods in groups that each share a run."""
    keyed = sorted(((method.tree_key(unit), method) for method in methods), key=lambda pair: pair[0])
    return [tuple(method for _, method in group) for _, group in groupby(keyed, key=lambda pair: pair[0])]


def seed_of(problem: Example, seed: int) -> int:
    """Return a problem's own search seed, of 53 bits as in requests.

    It depends on the problem itself, not on its place, the method or the budget: methods that begin with the same draws
    get the same draws, which pairs them the better.
    """
    return derive_seed(seed, "problem", problem.id) >> 10


async def run(
    backend: Backend,
    blocks: Iterable[Sequence[Job]],
    *,
    seed: int,
    concurrency: int,
    observe: Callable[[Sequence[Row]], None],
) -> None:
    """Grow and read every job, block by block and `concurrency` at a time; hand each job's rows to `observe`.

    A refused problem has rows that say so. The first failure ends the run; what was observed until then stands.
    """

    async def worker(work: Iterator[Job]) -> None:
        for job in work:
            observe(await _rows(backend, job, seed))

    for block in blocks:
        await backend.forget()
        work = iter(block)
        await all_of(worker(work) for _ in range(concurrency))


async def grow_and_grade(
    backend: Backend, problem: Example, method: Method, budget: Budget, seed: int
) -> tuple[GrownTree, AnswerGrades]:
    """Search one problem to its end and ask its verifier. Raises `SearchFailed`, `ProblemRefused`."""
    grown = await backend.grow(problem, method, budget, seed_of(problem, seed))
    tree = grown.tree
    if tree.status != "complete":
        raise SearchFailed(
            f"the search of {problem.id!r} ended {tree.status}: {tree.error or tree.stop_reason}"
        )
    return grown, await graded(tree, task(problem.task, problem.problem))


async def _rows(backend: Backend, job: Job, seed: int) -> list[Row]:
    problem = job.problem
    try:
        grown, verdicts = await grow_and_grade(backend, problem, job.methods[0], max(job.budgets), seed)
    except ProblemRefused as reason:
        return [
            refused_row(index, problem.group, method, budget, str(reason))
            for index, method, budget in sorted(job.rows)
        ]
    return rows_of(grown, verdicts, job.methods, job.budgets, problem=job.index, group=problem.group)


class Tally:
    """Running accuracies, for people who are waiting."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, Budget], int] = {}
        self.right: dict[tuple[str, Budget], int] = {}

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.refused is not None:
                continue
            cell = row.method, row.budget
            self.seen[cell] = self.seen.get(cell, 0) + 1
            self.right[cell] = self.right.get(cell, 0) + row.correct

    def accuracies(self) -> Mapping[tuple[str, Budget], float]:
        return {cell: self.right[cell] / seen for cell, seen in self.seen.items()}
