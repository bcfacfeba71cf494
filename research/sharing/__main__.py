"""Compare one budget that flows between prompts with the same total split evenly, on the same engines and problems.

    python -m research.sharing --data 'countdown:dev?numbers=4,5,6' --problems 150 --tokens 200,400 --set algorithm=mcts

Problems are asked in batches, as a client would. Both sides search with the same parameters and seeds. For each budget
a table says how many problems were right, the paired difference with its 95 % interval, and the tokens that were spent;
and how many tokens of the even split buy the accuracy that sharing reaches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from ramify.evaluation.backends import HiddenVerifier, LocalBackend, start
from ramify.evaluation.runner import seed_of
from ramify.rewards import datasets
from ramify.rewards.registry import task
from ramify.rewards.verifier import Example
from ramify.search.allocation import LEAST_GAIN
from ramify.search.batch import Batch, run_all
from ramify.search.run import Search
from ramify.search.tree import Tree
from ramify.service.search_spec import SearchSpec
from ramify.statistics import paired_difference


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to spend a total, on every problem."""

    name: str
    right: dict[str, float]
    """By problem: 1 if the answer was right."""
    tokens: dict[str, int]
    """By problem: tokens spent."""
    seconds: float

    @property
    def accuracy(self) -> float:
        return sum(self.right.values()) / len(self.right)

    @property
    def mean_tokens(self) -> float:
        return sum(self.tokens.values()) / len(self.tokens)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Grows trees for one side or the other."""

    backend: LocalBackend
    problems: Sequence[Example]
    search: dict[str, Any]
    sampling: dict[str, Any]
    size: int
    """Problems of one batch."""
    parallel: int
    least_gain: float
    seed: int

    async def uniform(self, tokens: int) -> Arm:
        """Give every problem the same."""
        began, trees = time.monotonic(), dict[str, Tree]()
        places = asyncio.Semaphore(self.size)

        async def one(problem: Example) -> None:
            async with places:
                search = self._search(problem, tokens, None)
                await search.run()
                trees[problem.id] = search.tree

        async with asyncio.TaskGroup() as group:
            for problem in self.problems:
                group.create_task(one(problem))
        return await self._arm("uniform", trees, time.monotonic() - began)

    async def shared(self, tokens: int) -> Arm:
        """Let the same total flow, batch by batch."""
        began, trees = time.monotonic(), dict[str, Tree]()
        for first in range(0, len(self.problems), self.size):
            problems = self.problems[first : first + self.size]
            total = tokens * len(problems)
            batch = Batch(total, parallel=self.parallel, least_gain=self.least_gain)
            searches = [self._search(problem, total, batch) for problem in problems]
            await run_all(searches)
            trees |= {p.id: s.tree for p, s in zip(problems, searches, strict=True)}
        return await self._arm("shared", trees, time.monotonic() - began)

    def _search(self, problem: Example, tokens: int, batch: Batch | None) -> Search:
        spec = SearchSpec(
            prompt=problem.prompt,
            task=problem.task,
            problem=problem.problem,
            search={**self.search, "budget": {"tokens": tokens}},
            sampling=self.sampling,
            seed=seed_of(problem, self.seed),
            train=False,
        )
        prepared = self.backend.preparer.prepare(spec)
        engines, task = self.backend.engines, HiddenVerifier(prepared.task)
        return Search(
            prepared.tree, engines.policies, engines.scorer, task, clock=time.monotonic, batch=batch
        )

    async def _arm(self, name: str, trees: dict[str, Tree], seconds: float) -> Arm:
        right = {p.id: await self._right(p, trees[p.id]) for p in self.problems}
        return Arm(name, right, {i: tree.usage.completion_tokens for i, tree in trees.items()}, seconds)

    async def _right(self, problem: Example, tree: Tree) -> float:
        if tree.answer is None:
            return 0.0
        return (await task(problem.task, problem.problem).grade(tree.answer.text)).outcome


def report(budgets: Sequence[int], uniform: Sequence[Arm], shared: Sequence[Arm]) -> str:
    """Write the table: one line for each budget."""
    lines = [
        "| tokens a problem | even split: right, spent | shared: right, spent | difference [95 %] | even split needs |",
        "|---|---|---|---|---|",
    ]
    for budget, even, flowing in zip(budgets, uniform, shared, strict=True):
        difference = paired_difference(flowing.right, even.right).percent(signed=True)
        needs = needed(uniform, flowing.accuracy)
        lines.append(
            f"| {budget} | {100 * even.accuracy:.1f} %, {even.mean_tokens:.0f} "
            f"| {100 * flowing.accuracy:.1f} %, {flowing.mean_tokens:.0f} | {difference} "
            f"| {'more than measured' if needs is None else f'{needs:.0f}'} |"
        )
    return "\n".join(lines)


def needed(uniform: Sequence[Arm], accuracy: float) -> float | None:
    """Return the tokens a problem with which the even split reaches `accuracy`, read off the line between two measured
    points; `None` beyond the last."""
    points = [(0.0, 0.0), *sorted((arm.mean_tokens, arm.accuracy) for arm in uniform)]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 <= accuracy <= y1:
            return x1 if y1 == y0 else x0 + (x1 - x0) * (accuracy - y0) / (y1 - y0)
    return None


async def main(arguments: argparse.Namespace) -> None:
    problems = datasets.load(arguments.data, arguments.problems, seed=arguments.data_seed)
    console = Console()
    budgets = sorted(int(tokens) for tokens in arguments.tokens.split(","))
    async with start(arguments.release) as backend:
        comparison = Comparison(
            backend, problems, json.loads(arguments.search), json.loads(arguments.sampling), arguments.size,
            arguments.parallel, arguments.least_gain, arguments.seed,
        )  # fmt: skip
        uniform, shared = list[Arm](), list[Arm]()
        for tokens in budgets:
            for arms, side in ((uniform, comparison.uniform), (shared, comparison.shared)):
                arms.append(await side(tokens))
                console.print(f"{tokens} {side.__name__}: {arms[-1].accuracy:.3f}, {arms[-1].seconds:.0f} s")
    console.print(report(budgets, uniform, shared), soft_wrap=True)
    if arguments.out is not None:
        sides = {"uniform": uniform, "shared": shared}
        rows = {name: [asdict(arm) for arm in arms] for name, arms in sides.items()}
        arguments.out.write_text(json.dumps({"budgets": budgets, **rows}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m research.sharing", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="countdown:dev?numbers=4,5,6")
    parser.add_argument("--problems", type=int, default=150)
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the searches")
    parser.add_argument("--tokens", default="150,300,600,1200", help="tokens a problem")
    parser.add_argument("--search", default="{}", help="search parameters, as JSON")
    parser.add_argument("--sampling", default="{}", help="sampling parameters, as JSON")
    parser.add_argument("--size", type=int, default=32, help="problems of one batch, and searched at once")
    parser.add_argument("--parallel", type=int, default=64, help="simulations of one batch in flight")
    parser.add_argument("--least-gain", type=float, default=LEAST_GAIN)
    parser.add_argument("--release", type=Path, help="the shipped one, if not given")
    parser.add_argument("--out", type=Path, help="a JSON file for what each problem cost and came to")
    asyncio.run(main(parser.parse_args()))
