"""What a search costs by itself: trees of growing size on engines that take no time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from ramify.bench.instant import LINE, LINES, AnyText, InstantPolicy, InstantScorer
from ramify.search.params import search_params
from ramify.search.records import BudgetLimits, Sampling
from ramify.search.run import Search
from ramify.search.tree import Tree

SIZES = (125, 250, 500, 1000, 2000)
SEARCHES: dict[str, dict[str, Any]] = {
    "mcts, paths, Thompson": {"algorithm": "mcts"},
    "mcts, paths, PUCT": {"algorithm": "mcts", "select": "puct"},
    "mcts, steps, PUCT": {"algorithm": "mcts", "select": "puct", "expand": "step", "width": 6},
}
"""What is timed: by name, the parameters of `search_params`."""


@dataclass(frozen=True, slots=True)
class Size:
    """A tree grown to one size; median over the repeats."""

    nodes: int
    simulations: int
    seconds: float
    """Processor seconds of this process, engine stand-ins included."""

    @property
    def per_simulation(self) -> float:
        return self.seconds / self.simulations


@dataclass(frozen=True, slots=True)
class SizeScaling:
    """How cost grows with the tree."""

    search: str
    exponent: float
    """Slope of log(seconds) over log(simulations): 1 is linear."""
    sizes: tuple[Size, ...]


async def growth(search: str, sizes: Sequence[int] = SIZES, repeats: int = 3) -> SizeScaling:
    """Grow trees of each size `repeats` times and fit the exponent."""
    await _grow(search, min(sizes), 0)  # what is slow only the first time
    found = []
    for size in sizes:
        runs = [await _grow(search, size, seed) for seed in range(repeats)]
        middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
        found.append(replace(middle, seconds=median(run.seconds for run in runs)))
    slope, _ = np.polyfit(np.log([s.simulations for s in found]), np.log([s.seconds for s in found]), 1)
    return SizeScaling(search, float(slope), tuple(found))


async def _grow(search: str, nodes: int, seed: int) -> Size:
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
    run = Search(tree, InstantPolicy(), InstantScorer(), AnyText(), clock=time.monotonic)
    before = time.process_time()
    await run.run()
    spent = time.process_time() - before
    if tree.status != "complete":
        raise RuntimeError(f"the search on instant engines ended {tree.status}: {tree.error}")
    return Size(len(tree.nodes), tree.usage.simulations, spent)
