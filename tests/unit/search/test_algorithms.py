"""The other algorithms by hand: beam, DVTS, DFS, particles, RAP, flat answers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fakes import letters
from ramify.search.algorithms import ALGORITHMS, install
from ramify.search.algorithms.particle import Particle
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.params import ParamError, search_params
from ramify.search.records import Action, BudgetLimits, Sampling
from search_worlds import (
    ONE_AT_A_TIME,
    ListingPolicy,
    first,
    grow,
    last,
    listing,
    new_tree,
    ran,
    texts,
)


def test_a_beam_keeps_the_best_at_each_level():
    # width 4, beam 2: level 1 is a b c d; a, b stay. Level 2: eight nodes; the two of the highest value are a a, b a.
    found = ran(
        value=last,
        policy=listing(9),
        algorithm="beam",
        beam_width=2,
        max_depth=9,
        budget=BudgetLimits(simulations=5),
    )
    root = found.tree.root
    assert texts([c for c in found.tree.children(root) if not c.pruned]) == ["a", "b"]
    assert texts([c for c in found.tree.children(root) if c.expanded]) == ["a", "b"]
    second = [n for n in found.tree.nodes if n.depth == 2 and n.expanded]
    assert [found.tree.text(n) for n in second] == ["a\na\n", "b\na\n"]


def test_a_finished_answer_leaves_the_beam():
    # "x" is the best and ends at once; the beam of 2 goes on with two unfinished nodes, and nothing is
    # written after "x"
    found = ran(value=lambda text: 1.0 if text.startswith("x") else last(text),
                policy=ListingPolicy(lambda text: dict.fromkeys(("x\n", "a\n", "b\n", "c\n"), 0.25)), algorithm="beam",
                beam_width=2, sampling=Sampling(stop=("x\n",)), budget=BudgetLimits(simulations=3))  # fmt: skip
    assert texts([n for n in found.tree.children(found.tree.root) if n.expanded]) == ["a", "b"]
    assert not found.at("x\n").children
    assert not any(text.endswith("x\n") for text, _, _ in found.policy.requests)


def test_subtrees_of_dvts_never_compete():
    # 2 subtrees start at a and b. b's children are all worse than a's, yet b goes on.
    found = ran(
        value=first, policy=listing(9), algorithm="dvts", beam_width=2, budget=BudgetLimits(simulations=5)
    )
    asked = [(text.removeprefix("?\n").replace("\n", ""), n) for text, _, n in found.policy.requests[:5]]
    assert asked == [("", 8), ("a", 4), ("b", 4), ("aa", 4), ("ba", 4)]


def test_dfs_goes_deep_first_and_prunes_below_the_threshold():
    # `d` is worth 0.05 < 0.1. Answers are 2 lines; a's four children are written first, then b's.
    found = ran(
        value=last,
        policy=listing(2),
        algorithm="dfs",
        action=Action(max_tokens=2),
        budget=BudgetLimits(simulations=7),
    )
    order = [text.removeprefix("?\n").replace("\n", "") for text, _, _ in found.policy.requests]
    assert order == ["", "a", "aa", "ab", "ac", "b", "ba"]
    assert [n.pruned for n in found.tree.children(found.tree.root)] == [False, False, False, True]


def test_particles_weigh_by_how_much_their_value_rose():
    # from s with v = 0.5 to s' with v = 0.25: ½; from the prompt: v itself; never below the floor
    tree = new_tree(algorithm="particle")
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    particle = Particle(builder, random.Random(0))
    s = grow(builder, tree.root, "s", value=0.5)
    after = grow(builder, s, "t", value=0.25)
    ungraded = grow(builder, s, "u", terminal="eos")
    assert particle._weight(tree.root, s) == 0.5
    assert particle._weight(s, after) == 0.5
    assert particle._weight(s, ungraded) == 1.0


def test_systematic_resampling_copies_each_particle_about_as_often_as_it_weighs():
    # weights 3, 1, 0, 0 over four particles: step 1, so three or… exactly 3 and 1 whatever the offset
    for seed in range(10):
        tree = new_tree(algorithm="particle", beam_width=4)
        builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
        particle = Particle(builder, random.Random(seed))
        nodes = [grow(builder, tree.root, text, value=0.5) for text in "abcd"]
        particle._at.clear()
        particle._moved = list(zip(nodes, (3.0, 1.0, 0.0, 0.0), strict=True))
        particle._resample()
        assert particle._at == {1: 3, 2: 1}
        assert [node.pruned for node in nodes] == [False, False, True, True]


def test_particles_that_the_budget_left_behind_write_later():
    # 16 particles of up to 4 tokens: 64 tokens a round, of which 40 can be set aside at first. All 16 get their step.
    found = ran(letters({"a": 0.5, "b": 0.5}, 1), algorithm="particle", beam_width=16, action=Action(max_tokens=4),
                sampling=Sampling(max_tokens=8), budget=BudgetLimits(simulations=60, tokens=48),
                **ONE_AT_A_TIME)  # fmt: skip
    assert sum(n.multiplicity for n in found.tree.children(found.tree.root)) == 16


def test_every_simulation_of_rap_ends_at_the_end_of_an_answer():
    found = ran(
        value=last, policy=listing(4, "ab"), algorithm="rap", width=2, budget=BudgetLimits(simulations=6)
    )
    # one backup for each complete path: visits at the leaves are the simulations
    assert found.tree.usage.simulations == 6
    assert sum(n.visits for n in found.tree.complete()) == 6
    assert found.tree.root.visits == 6


def test_greedy_decoding_is_one_flat_simulation_at_temperature_0():
    found = ran(algorithm="best_of_n", sampling=Sampling(temperature=0), budget=BudgetLimits(simulations=1))
    assert found.tree.answer is not None
    assert found.tree.answer.text == "a\na\na\n"
    assert len(found.policy.requests) == 1
    assert [node.depth for node in found.tree.nodes] == [0, 1]


OWN = """
from ramify.search.algorithms.pruning import Beam

class Own(Beam):
    parameters = Beam.parameters - {"width"}
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with an algorithm, and the registry as it was once the test is over."""
    (tmp_path / "own_search.py").write_text(OWN)
    info = tmp_path / "own_search-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own_search\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ramify.algorithms]\ninstalled = own_search:Own\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ramify.search.algorithms.ALGORITHMS", before := dict(ALGORITHMS))
    monkeypatch.setattr("ramify.search.params.ALGORITHMS", before)


@pytest.mark.usefixtures("own_package")
def test_an_algorithm_of_another_package_is_known_by_its_name() -> None:
    install({"named": "own_search:Own"})
    assert search_params("installed").algorithm == "installed"
    with pytest.raises(ParamError, match="width: has no effect with algorithm 'named'"):
        search_params("named", width=2)


@pytest.mark.usefixtures("own_package")
@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("mcts", "own_search:Own", "there is an algorithm 'mcts' already"),
        ("named", "random:Random", "is no subclass of ramify.search.algorithms.base.Algorithm"),
    ],
)
def test_what_cannot_be_an_algorithm_is_refused_at_start(name: str, path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        install({name: path})
