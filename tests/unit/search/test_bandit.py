"""The bandit between several policies: whom it asks, what it learns, and what it keeps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.search.policies import PolicyBandit
from search_worlds import new_tree

BOTH = ("policy", "other")
SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)


def pulled(
    rates: Mapping[str, float], draws: int, seed: int, in_flight: int = 1
) -> tuple[list[str], PolicyBandit]:
    """Return whom the bandit asked at the root: each is right at its rate, `in_flight` draws after it was asked."""
    tree = new_tree(policies=tuple(rates), algorithm="best_of_n", seed=seed)
    bandit, chance = PolicyBandit(tree), random.Random(seed)
    asked: list[str] = []
    waiting: list[str] = []
    for _ in range(draws):
        asked.append(bandit.choose(tree.root, lambda name: 1.0))
        waiting.append(asked[-1])
        bandit.begin(tree.root, asked[-1])
        if len(waiting) == in_flight:
            name = waiting.pop(0)
            bandit.end(tree.root, name)
            bandit.learn(tree.root, name, float(chance.random() < rates[name]))
    return asked, bandit


def test_a_kept_state_stays_as_it_is_when_a_policy_fails_later() -> None:
    _, bandit = pulled(dict.fromkeys(BOTH, 0.5), draws=4, seed=1)
    kept = bandit.state()
    assert bandit.close("other", "gone")
    assert (kept["closed"], bandit.state()["closed"]) == ({}, {"other": "gone"})


seeds = st.integers(0, 2**32)
names = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=5, unique=True)


@SETTINGS
@given(names, st.data(), seeds, st.integers(1, 8))
def test_every_policy_is_tried_and_the_share_of_the_best_grows(
    names: list[str], data: st.DataObject, seed: int, in_flight: int
) -> None:
    best = data.draw(st.sampled_from(names))
    asked, _ = pulled({name: 0.8 if name == best else 0.3 for name in names}, 400, seed, in_flight)
    assert set(asked[:100]) == set(names)
    early, late = (part.count(best) / len(part) for part in (asked[:40], asked[-200:]))
    assert late > 0.6
    assert late > early - 0.2  # it may have been lucky early on
    assert asked[-200:].count(best) > max(asked[-200:].count(name) for name in names if name != best)


@SETTINGS
@given(names, st.floats(0.05, 0.95), seeds)
def test_none_starves_if_all_are_equally_good(names: list[str], rate: float, seed: int) -> None:
    asked, _ = pulled(dict.fromkeys(names, rate), 400, seed)
    assert min(Counter(asked)[name] for name in names) >= 400 / len(names) / 12


@SETTINGS
@given(names, seeds)
def test_the_seed_decides_who_is_asked(names: list[str], seed: int) -> None:
    rates = {name: i / len(names) for i, name in enumerate(names)}
    assert pulled(rates, 50, seed)[0] == pulled(rates, 50, seed)[0]
    assert pulled(rates, 50, seed)[0] != pulled(rates, 50, seed + 1)[0]


@SETTINGS
@given(names, seeds, st.integers(1, 60))
def test_what_begins_and_ends_unseen_leaves_no_trace(names: list[str], seed: int, draws: int) -> None:
    tree = new_tree(policies=tuple(names), algorithm="best_of_n", seed=seed)
    bandit = PolicyBandit(tree)
    for i in range(draws):
        bandit.begin(tree.root, names[i % len(names)])
    for i in range(draws):
        bandit.end(tree.root, names[i % len(names)])
    assert {bandit._posterior(tree.root, name) for name in names} == {(1.0, 1.0)}


def test_a_nodes_own_draws_outweigh_those_elsewhere() -> None:
    """In the whole search `a` is better, at one node `b` is: there `b` is asked, elsewhere `a`."""
    tree = new_tree(policies=("a", "b"))
    here, elsewhere, fresh = (tree.add(tree.root) for _ in range(3))
    bandit = PolicyBandit(tree)
    for _ in range(500):
        bandit.learn(elsewhere, "a", 0.9)
        bandit.learn(elsewhere, "b", 0.1)
    for _ in range(200):
        bandit.learn(here, "a", 0.1)
        bandit.learn(here, "b", 0.9)
    asked: dict[int, Counter[str]] = {node.id: Counter() for node in (here, fresh)}
    for _ in range(200):
        for node in (here, fresh):
            name = bandit.choose(node, lambda name: 1.0)
            asked[node.id][name] += 1
            bandit.begin(node, name)
            bandit.end(node, name)
    assert asked[here.id]["b"] > 190
    assert asked[fresh.id]["a"] > 190


def test_a_policy_that_has_said_all_it_can_is_not_asked_again() -> None:
    tree = new_tree(policies=BOTH)
    bandit = PolicyBandit(tree)
    for _ in range(50):
        bandit.learn(tree.root, "policy", 1.0)
        bandit.learn(tree.root, "other", 0.1)
    assert bandit.choose(tree.root, lambda name: float(name == "other")) == "other"
    assert bandit.choose(tree.root, lambda name: 0.0) in BOTH
