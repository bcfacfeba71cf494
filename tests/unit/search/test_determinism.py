"""Same seed, waves, deterministic engine: the same tree, whatever else goes on."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

import search_goldens
from fakes import FakePolicy, FakeReviser, FakeScorer, FakeTask
from ramify.search.records import BudgetLimits
from ramify.search.run import Search
from ramify.search.tree import derive_seed
from search_worlds import described, new_tree, parity, ran, rule_for, shape, variants


async def crowd(params: dict[str, Any], others: int, jitter: int | None) -> list[dict[str, Any]]:
    """The trees of the seeds 0, 1, … grown at once on one engine."""
    policy = FakePolicy(rule_for(params), jitter=None if jitter is None else random.Random(jitter))
    scorer, task = FakeScorer(parity), FakeTask(lambda text: text.startswith("a"))

    def search(seed: int) -> Search:
        tree = new_tree(
            **params, seed=seed, schedule="waves", budget=BudgetLimits(simulations=15, tokens=200)
        )
        return Search(tree, policy, scorer, task, clock=lambda: 0.0, reviser=FakeReviser())

    searches = [search(seed) for seed in range(others + 1)]
    await asyncio.gather(*(s.run() for s in searches))
    assert not any(s.tree.error for s in searches)
    return [shape(s.tree) for s in searches]


@pytest.mark.anyio
@pytest.mark.parametrize("params", variants(), ids=described)
async def test_timing_and_company_change_nothing_in_waves(params: dict[str, Any]):
    (alone,) = await crowd(params, others=0, jitter=None)
    for others, jitter in ((0, 1), (2, 2)):
        assert (await crowd(params, others, jitter))[0] == alone


@pytest.mark.anyio
@pytest.mark.parametrize("params", [{"algorithm": "mcts"}, {"algorithm": "gumbel"}], ids=described)
async def test_64_other_searches_change_nothing_in_waves(params: dict[str, Any]):
    together = await crowd(params, others=64, jitter=3)
    alone = await crowd(params, others=0, jitter=None)
    assert together[0] == alone[0]
    assert len({json.dumps(tree["nodes"]) for tree in together}) > 50


def test_another_seed_grows_another_tree():
    one, other = (shape(ran(algorithm="mcts", schedule="waves", seed=seed).tree) for seed in (1, 2))
    assert one["nodes"] != other["nodes"]


@pytest.mark.parametrize("name", search_goldens.CASES)
def test_a_golden_search_grows_the_tree_it_always_grew(name: str):
    # to write them again: see tests/search_goldens.py
    found = json.loads(json.dumps(search_goldens.document(search_goldens.grown(name))))
    assert found == json.loads(search_goldens.path(name).read_text())


def test_there_is_no_golden_tree_without_a_case():
    kept = {path.name for path in search_goldens.FOLDER.glob("search_*.json")}
    assert kept == {search_goldens.path(name).name for name in search_goldens.CASES}


def test_seeds_of_neighbours_share_nothing():
    seeds = [derive_seed(7, "draw", *place, expansion, "end", i)
             for place in ((), (0,), (1,), (0, 1)) for expansion in range(8) for i in range(8)]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(7, "draw", 1) == derive_seed(7, "draw", 1)
