"""A search that is taken on later, from its tree alone, goes on exactly where it was."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from departing_fake import DepartingFake
from fakes import FakePolicy, FakeReviser, FakeScorer, FakeTask, Rule, encode
from ramify.search import go_on
from ramify.search import search as library_search
from ramify.search.algorithms import ALGORITHMS
from ramify.search.algorithms.base import Algorithm
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.codec import tree_from_dict, tree_to_dict
from ramify.search.records import BudgetLimits, Continuation, Sampling
from ramify.search.run import Search, close_interrupted
from ramify.search.state import BadState, CountedRandom, set_state, state_of, taken_on
from ramify.search.tree import Tree, derive_seed
from search_worlds import (
    PROMPT,
    REFINE,
    TOKEN,
    check_answers,
    check_nodes,
    check_visits,
    described,
    new_tree,
    parity,
    rule_for,
    shape,
    variants,
    world,
)

FEW, MORE = BudgetLimits(simulations=9, tokens=120), BudgetLimits(simulations=20, tokens=400)
WAVES: dict[str, Any] = {"schedule": "waves", "parallel": 3}
SHORT = Sampling(max_tokens=12)


class Raised(Search):
    """A search whose limits are raised, while it runs, once it has come to the first ones."""

    more: BudgetLimits | None = MORE

    def _start_final(self, reason: Any) -> bool:
        if self.more is None or not self.tree.completions:
            return super()._start_final(reason)
        before = self.budget.fraction()
        self.budget.limits, self.more = self.more, None
        self.algorithm.rescale(self.budget.fraction() / before)
        self._wake.set()
        return True


BOTH = ("policy", "other")
"""Two policies of one search."""


def several() -> list[dict[str, Any]]:
    """Every variant, and some of them with several policies."""
    alone = variants()
    drawn = [p for p in alone if p.get("action") is not TOKEN and p.get("action") is not REFINE]
    shared = [p for p in drawn if p["algorithm"] in ("mcts", "best_of_n", "particle")]
    return [*alone, *({**params, "policies": BOTH} for params in shared)]


def search(tree: Tree, params: dict[str, Any], kind: type[Search] = Search, **options: Any) -> Search:
    rule, task = rule_for(params), FakeTask(lambda text: text.startswith("a"))
    policy = FakePolicy if params.get("replacement", True) else DepartingFake
    policies = {"policy": policy(rule), "other": policy(backwards(rule))}
    return kind(tree, policies, FakeScorer(parity), task, clock=lambda: 0.0, reviser=FakeReviser(), **options)


def backwards(rule: Rule) -> Rule:
    """The same texts with each other's probabilities."""

    def turned(text: str) -> Mapping[str, float]:
        return dict(zip(rule(text), reversed(rule(text).values()), strict=True))

    return turned


def stored(tree: Tree) -> Tree:
    """The tree as the log gives it back."""
    return tree_from_dict(json.loads(json.dumps(tree_to_dict(tree))))


def grown(tree: Tree) -> dict[str, Any]:
    """Everything that two searches have in common if they grew the same tree."""
    found = shape(tree)
    for name in ("id", "continues", "params", "created_at", "search_state"):
        found.pop(name, None)
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("params", several(), ids=described)
async def test_a_search_in_two_parts_grows_the_tree_of_one_whose_limits_were_raised(params: dict[str, Any]):
    params = {**params, **WAVES}
    first = new_tree(**params, sampling=SHORT, budget=FEW)
    await search(first, params, keeps_state=True).run()
    if not first.completions or first.completions[-1].simulation == 0:
        pytest.skip("the first part ends with a final rollout, which an unbroken search does not draw")
    then = taken_on(stored(first), MORE, tree_id="tree_2")
    await search(then, params).run()
    whole = new_tree(**params, sampling=SHORT, budget=FEW)
    await search(whole, params, Raised).run()
    assert grown(then) == grown(whole)
    assert then.usage.completion_tokens >= first.usage.completion_tokens
    assert then.continues is not None
    assert (then.continues.tree, then.continues.usage) == (first.id, first.usage)


@pytest.mark.anyio
@pytest.mark.parametrize("order", [WAVES, {"schedule": "continuous", "parallel": 1}], ids=["waves", "alone"])
@pytest.mark.parametrize("params", several(), ids=described)
async def test_a_search_goes_on_from_a_checkpoint_as_if_nothing_had_happened(
    params: dict[str, Any], order: dict[str, Any]
):
    params = {**params, **order}
    kept: list[Tree] = []

    async def keep(running: Search) -> None:
        kept.append(stored(running.snapshot()))

    whole = new_tree(**params, sampling=SHORT, budget=FEW)
    await search(whole, params, checkpoint=keep).run()
    assert kept
    for part in (kept[0], kept[len(kept) // 2]):
        close_interrupted(part)
        then = taken_on(stored(part), FEW)
        await search(then, params).run()
        assert grown(then) == grown(whole)


@dataclass
class SeedsSeen(FakePolicy):
    """Remembers the seed of each draw that it has given back."""

    given: Counter[int] = field(default_factory=Counter)

    def _draws(self, text: str, sampling: Sampling, seeds: Sequence[int]) -> list[Continuation]:
        self.given.update(seeds)
        return super()._draws(text, sampling, seeds)


def seeds_of(tree: Tree) -> set[int]:
    """The seeds of the plans that never landed, some of whose draws the engine may have made."""
    assert tree.search_state is not None
    places = []
    for plan in tree.search_state.plans:
        lineage = tree.lineage(tree.nodes[plan["path"][-1]])
        place = [a.children.index(b.id) for a, b in itertools.pairwise(lineage)]
        rests = [["step"], ["end"], *(["on", i] for i in range(SHORT.max_tokens))]
        places += [[*place, plan["expansion"], *rest, i] for rest in rests for i in range(max(1, plan["n"]))]
    return {derive_seed(tree.seed, "draw", *place) for place in places}


@pytest.mark.parametrize("params", variants(), ids=described)
def test_what_was_cut_off_is_sent_again_and_nothing_that_landed_is_drawn_twice(params: dict[str, Any]):
    if params.get("action") is TOKEN:
        pytest.skip("enumerated tokens have no seeds")
    policy = SeedsSeen(rule_for(params))
    params = {**params, "parallel": 4, "sampling": SHORT, "budget": BudgetLimits(simulations=30, tokens=500)}
    first = world(policy=policy, keeps_state=True, **params)
    stop_at = 5
    first.search.observe = lambda now: now.simulations >= stop_at and first.search.stop("cancelled", "client")
    asyncio.run(first.run())
    assert first.tree.search_state is not None
    again = len(first.tree.search_state.plans)
    landed = policy.given.copy()
    then = world(policy=policy, goes_on=taken_on(stored(first.tree), params["budget"]))
    asyncio.run(then.run())
    for law in (check_nodes, check_visits, check_answers):
        law(then.tree)
    assert then.tree.usage.completion_tokens == policy.generated
    assert max((policy.given - landed).values(), default=1) == 1
    assert (policy.given - landed).keys() & landed.keys() <= seeds_of(first.tree)
    assert then.tree.usage.simulations >= first.tree.usage.simulations + again * (
        params["algorithm"] != "rap"
    )


def test_a_search_goes_on_three_times_and_each_part_names_the_one_before():
    params: dict[str, Any] = {"algorithm": "mcts", **WAVES}
    tree = ran_in(new_tree(**params, sampling=SHORT, budget=BudgetLimits(simulations=3)))
    for simulations in (6, 9):
        before = tree
        tree = ran_in(
            taken_on(stored(before), BudgetLimits(simulations=simulations), tree_id=f"tree_{simulations}")
        )
        assert tree.continues is not None
        assert tree.continues.tree == before.id
        assert tree.usage.simulations == simulations
    unbroken = ran_in(new_tree(**params, sampling=SHORT, budget=BudgetLimits(simulations=9)))
    assert grown(tree)["nodes"] == grown(unbroken)["nodes"]


def ran_in(tree: Tree) -> Tree:
    asyncio.run(search(tree, {"algorithm": tree.params.algorithm}, keeps_state=True).run())
    return tree


def test_seconds_of_both_parts_count():
    part = ran_in(new_tree(algorithm="mcts", budget=BudgetLimits(simulations=4, seconds=10.0)))
    part = replace(part, usage=replace(part.usage, seconds=7.0))
    tree = taken_on(part, BudgetLimits(simulations=8, seconds=10.0))
    going = search(tree, {"algorithm": "mcts"})
    assert going.budget.seconds == 7.0


@given(st.lists(st.sampled_from(["random", "beta", "choices", "range"]), max_size=30), st.integers(0, 2**64))
@settings(max_examples=50)
def test_a_counted_generator_goes_to_where_another_has_come(calls: list[str], seed: int):
    def call(rng: random.Random, name: str) -> Any:
        if name == "beta":
            return rng.betavariate(0.5, 2.0)
        if name == "choices":
            return rng.choices([1, 2, 3], [0.2, 0.3, 0.5], k=2)
        return rng.random() if name == "random" else rng.randrange(10**30)

    counted, plain, later = CountedRandom(seed), random.Random(seed), CountedRandom(seed)
    assert [call(counted, name) for name in calls] == [call(plain, name) for name in calls]
    later.go_to(counted.words)
    assert later.random() == counted.random()


class Keeper(Algorithm):
    """An algorithm that keeps things of many kinds."""

    def __init__(self, builder: TreeBuilder, rng: random.Random) -> None:
        super().__init__(builder, rng)
        self.queue: deque[Any] = deque()
        self.counts: Counter[int] = Counter()
        self.pairs: list[Any] = []
        self.at: Any = None

    def select(self) -> None:
        return None

    def land(self, *_: Any) -> None:
        return None


def keeper(tree: Tree) -> Keeper:
    return Keeper(TreeBuilder(tree, Budget(tree.params.budget, final=1, clock=lambda: 0.0)), random.Random(0))


def test_the_state_of_an_algorithm_of_ones_own_is_its_attributes():
    tree = ran_in(new_tree(algorithm="mcts", budget=BudgetLimits(simulations=4)))
    one, other = keeper(tree), keeper(tree)
    one.queue, one.counts = deque(tree.nodes[:3]), Counter({0: 4, 2: 1})
    one.pairs, one.at = [(tree.nodes[1], 0.25)], tree.nodes[2]
    set_state(other, json.loads(json.dumps(state_of(one))))
    assert other.queue == one.queue
    assert other.queue[1] is tree.nodes[1]
    assert other.counts == one.counts
    assert [tuple(pair) for pair in other.pairs] == one.pairs
    assert other.at is tree.nodes[2]


def test_an_algorithm_that_keeps_what_cannot_be_written_is_searched_with_and_not_taken_on():
    one = keeper(new_tree(algorithm="mcts"))
    one.at = object()
    with pytest.raises(BadState, match="at holds a object, which cannot be kept"):
        state_of(one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"algorithm": {}}, "'mcts' is not what it was when this search ran: _begun"),
        ({"algorithm": {"_begun": {"node": 9999}}}, "names the node 9999"),
        ({"plans": ({"path": [0]},)}, "a plan that cannot be sent again"),
    ],
)
def test_a_state_of_other_code_is_refused(change: dict[str, Any], said: str):
    part = ran_in(new_tree(algorithm="mcts", budget=BudgetLimits(simulations=4)))
    assert part.search_state is not None
    part.search_state = replace(part.search_state, **change)
    with pytest.raises(BadState, match=said):
        search(taken_on(part, MORE), {"algorithm": "mcts"})


def test_a_tree_without_a_state_cannot_be_taken_on():
    part = new_tree(algorithm="mcts")
    with pytest.raises(BadState, match="kept no state"):
        taken_on(part, MORE)


def test_every_shipped_algorithm_can_be_taken_on():
    for name in ALGORITHMS:
        assert ran_in(new_tree(algorithm=name, budget=BudgetLimits(simulations=2))).search_state is not None


@pytest.mark.anyio
async def test_a_search_of_the_library_that_went_on_is_read_back_though_it_has_no_id():
    policy, scorer, task = FakePolicy(rule_for({"algorithm": "mcts"})), FakeScorer(parity), FakeTask()
    asked: dict[str, Any] = {"algorithm": "mcts", "budget": FEW, "sampling": SHORT}
    part = await library_search(encode(PROMPT), policy, scorer, task, clock=lambda: 0.0, **asked)
    longer = await go_on(stored(part), policy, scorer, task, budget=MORE, clock=lambda: 0.0)
    assert longer.continues is not None
    assert stored(longer) == longer
    assert longer.usage.simulations > part.usage.simulations
