"""The search's own time grows with its simulations and not with their square."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping
from typing import Any

import pytest

from fakes import FakePolicy
from ramify.search.records import BudgetLimits
from search_worlds import world


def bushy(text: str) -> Mapping[str, float]:
    """Five lines of one of 40 letters: trees grow wide and deep."""
    if text.count("\n") == 5:
        return {"": 1.0}
    return {f"{chr(97 + i)}\n": 1 / 40 for i in range(40)}


def seconds_per_simulation(nodes: int, params: dict[str, Any]) -> float:
    """Processor time of the search alone: the fake policy's is taken off."""
    policy = Timed(bushy)
    found = world(policy=policy, value=lambda text: 0.5, **params,
                  budget=BudgetLimits(simulations=5000, nodes=nodes))  # fmt: skip
    gc.disable()  # a collection walks all that the whole test run has left behind
    before = time.process_time()
    try:
        asyncio.run(found.run())
    finally:
        gc.enable()
    spent = time.process_time() - before - policy.seconds
    assert found.tree.stop_reason == "budget.nodes"
    assert len(found.tree.nodes) > nodes
    return spent / found.tree.usage.simulations


class Timed(FakePolicy):
    seconds = 0.0

    def _one(self, *args: Any) -> Any:
        before = time.process_time()
        step = super()._one(*args)
        self.seconds += time.process_time() - before
        return step


@pytest.mark.parametrize(
    "params",
    [
        {"algorithm": "mcts"},
        {"algorithm": "mcts", "select": "puct"},
        {"algorithm": "mcts", "early_stop": "posterior", "early_stop_threshold": 1.0},
        {"algorithm": "mcts", "expand": "step", "widen": True},
        {"algorithm": "gumbel", "c_scale": 0.01},
        {"algorithm": "best_of_n"},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_a_simulation_costs_about_as_much_in_a_tree_of_1200_nodes_as_in_one_of_200(params: dict[str, Any]):
    small = min(seconds_per_simulation(200, params) for _ in range(3))
    large = min(seconds_per_simulation(1200, params) for _ in range(2))
    print(f"{small * 1e6:.0f} µs a simulation at 200 nodes, {large * 1e6:.0f} µs at 1200")
    assert large < 3 * small
