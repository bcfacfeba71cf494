"""The cost of a search by itself: trees of growing size on engines that take no time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from ramify.search.params import search_params
from ramify.search.records import BudgetLimits, Continuation, Finish, Sampling, Score, Verdict
from ramify.search.run import Search
from ramify.search.tree import Tree

SIZES = (125, 250, 500, 1000, 2000)
SEARCHES: dict[str, dict[str, Any]] = {
    "mcts, paths, Thompson": {"algorithm": "mcts"},
    "mcts, paths, PUCT": {"algorithm": "mcts", "select": "puct"},
    "mcts, steps, PUCT": {"algorithm": "mcts", "select": "puct", "expand": "step", "width": 6},
}
"""The timed searches: by name, the parameters of `search_params`."""
LINE = 7
"""Tokens of a step of `InstantWorld`, the delimiter included."""
LINES = 5
"""Steps of an answer."""
BRANCHING = 50
"""Tokens that may begin a step: trees grow wide and deep."""
END = 1
DELIMITER = 2


@dataclass(frozen=True, slots=True)
class TreeCost:
    """The cost of a tree grown to one size; median over the repeats."""

    nodes: int
    simulations: int
    seconds: float
    """Processor seconds of this process, the engines' stand-in included."""

    @property
    def per_simulation(self) -> float:
        return self.seconds / self.simulations


@dataclass(frozen=True, slots=True)
class SizeScaling:
    """The growth of a search's cost with its tree."""

    search: str
    exponent: float
    """Slope of log(seconds) over log(simulations): 1 is linear."""
    sizes: tuple[TreeCost, ...]


async def growth(search: str, sizes: Sequence[int] = SIZES, repeats: int = 3) -> SizeScaling:
    """Grow trees of each size `repeats` times and fit the exponent."""
    await _grow(search, min(sizes), 0)  # what is slow only the first time
    costs = []
    for size in sizes:
        runs = [await _grow(search, size, seed) for seed in range(repeats)]
        middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
        costs.append(replace(middle, seconds=median(run.seconds for run in runs)))
    slope, _ = np.polyfit(np.log([c.simulations for c in costs]), np.log([c.seconds for c in costs]), 1)
    return SizeScaling(search, float(slope), tuple(costs))


async def _grow(search: str, nodes: int, seed: int) -> TreeCost:
    params = search_params(**SEARCHES[search], budget=BudgetLimits(simulations=10_000, nodes=nodes))
    tree = Tree(
        id=f"tree_{seed:032x}",
        created_at=0.0,
        model="instant",
        prompt="",
        prompt_tokens=(0,),
        params=params,
        sampling=Sampling(max_tokens=LINE * LINES + 1),
        seed=seed,
    )
    world = InstantWorld()
    run = Search(tree, world, world, world, clock=time.monotonic)
    before = time.process_time()
    await run.run()
    spent = time.process_time() - before
    if tree.status != "complete":
        raise RuntimeError(f"the search on instant engines ended {tree.status}: {tree.error}")
    return TreeCost(len(tree.nodes), tree.usage.simulations, spent)


class InstantWorld:
    """A policy, a scorer and a task that take no time: what is left is the search's own cost."""

    async def sample(
        self, prefix: Sequence[int], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Continuation]:
        """Write what is left of five lines of seven random tokens."""
        await asyncio.sleep(0)
        return [_continuation(prefix, sampling, random.Random(seed)) for seed in seeds]

    async def next_tokens(self, prefix: Sequence[int], k: int, temperature: float) -> list[Continuation]:
        raise TypeError("the scaling bench draws steps and paths only")

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        """Values from the tokens' own hash, the same every time."""
        await asyncio.sleep(0)
        return [Score(hash(tuple(s)) % 1000 / 999, "instant") for s in sequences]

    async def final(self, text: str) -> str | None:
        """Return the text: each is an answer of its own."""
        return text

    async def grade(self, text: str) -> Verdict:
        return Verdict(0.0, "not asked")


def _continuation(prefix: Sequence[int], sampling: Sampling, rng: random.Random) -> Continuation:
    done = sum(token == DELIMITER for token in prefix)
    tokens: list[int] = []
    for _ in range(LINES - done):
        tokens += [10 + rng.randrange(BRANCHING), *([9] * (LINE - 2)), DELIMITER]
    stopped = "\n" in sampling.stop and done < LINES
    tokens = (tokens[:LINE] if stopped else [*tokens, END])[: sampling.max_tokens]
    text = "".join("\n" if t == DELIMITER else "" if t == END else chr(t + 60) for t in tokens)
    ends, at = [], 0
    for token in tokens:
        at += token != END
        ends.append(at)
    finish: Finish = "eos" if tokens[-1] == END else "stop" if stopped else "length"
    return Continuation(tuple(tokens), text, (-1.0,) * len(tokens), tuple(ends), finish, "instant")
