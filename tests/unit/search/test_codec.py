"""Trees as JSON: nothing is lost, nothing odd is let in."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ramify.search.codec import SCHEMA_VERSION, BadTree, tree_from_dict, tree_to_dict
from ramify.search.records import BudgetLimits, Origin
from search_worlds import ran

FOUND = ran(
    algorithm="mcts", expand="step", commit="step", leaf="mixed", budget=BudgetLimits(simulations=9)
).tree
FOUND.problem = {"numbers": [1, 2], "target": 3}


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(tree_to_dict(FOUND)))
    return loaded


def test_a_tree_survives_json_unchanged():
    assert tree_from_dict(document()) == FOUND
    assert document()["schema_version"] == SCHEMA_VERSION


def test_reading_a_tree_leaves_the_document_alone():
    read = document()
    tree_from_dict(read)
    assert read == document()


def spoiled(*path: Any, value: Any = "gone") -> dict[str, Any]:
    """The document with one thing changed, added or (`gone`) taken away."""
    found: Any = copy.deepcopy(document())
    whole = found
    for key in path[:-1]:
        found = found[key]
    if value == "gone":
        del found[path[-1]]
    else:
        found[path[-1]] = value
    return whole  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema_version",), 99, "schema_version is 99"),
        (("schema_version",), "gone", "schema_version is None"),
        (("seed",), "gone", "Tree lacks 'seed'"),
        (("colour",), "red", "Tree has no field 'colour'"),
        (("nodes", 1, "colour"), "red", "Node has no field 'colour'"),
        (("params", "action", "kind"), "gone", "Action lacks 'kind'"),
        (("params", "budget", "colour"), 1, "BudgetLimits has no field 'colour'"),
        (("usage",), None, "not a tree"),
        (("nodes",), [], "node 0 must be the root"),
        (("nodes", 0, "parent"), 1, "node 0 must be the root"),
        (("nodes", 1, "id"), 5, "node 1 calls itself 5"),
        (("nodes", 1, "parent"), 3, "names 1, which is no child"),
        (("nodes", 1, "depth"), 7, "node 1 has depth 7"),
        (("nodes", 1, "logprobs"), [], "tokens and 0 log-probs"),
        (("nodes", 1, "value"), 1.5, "outside [0, 1]"),
        (("nodes", 1, "prior"), -0.5, "outside [0, 1]"),
        (("nodes", 1, "value_sum"), float("nan"), "not finite"),
        (("nodes", 1, "value_sum"), 1e6, "visits whose values sum to"),
        (("nodes", 0, "children"), [0], "names 0, which is no child"),
        (("nodes", 0, "children"), [], "unknown to its parent"),
        (("committed",), [10**6], "node 1000000 is named but not there"),
        (("completions", 0, "node"), -1, "node -1 is named but not there"),
        (("answer", "node"), 10**6, "node 1000000 is named but not there"),
    ],
)
def test_what_is_no_tree_is_refused_and_says_why(path: tuple[Any, ...], value: Any, said: str):
    with pytest.raises(BadTree) as refused:
        tree_from_dict(spoiled(*path, value=value))
    assert said in str(refused.value)


def test_a_tree_that_was_never_branched_is_the_same_json_as_before_there_were_branches():
    assert "origin" not in document()


def test_a_branched_tree_survives_json_unchanged_and_its_parts_belong_together():
    branched = copy.deepcopy(FOUND)
    branched.parent_tree, branched.origin = "tree_" + "0" * 32, Origin(3, "a\n", 2)
    loaded = json.loads(json.dumps(tree_to_dict(branched)))
    assert tree_from_dict(loaded) == branched
    for spoil in ({"origin": None}, {"parent_tree": None}, {"origin": {**loaded["origin"], "tokens": 999}}):
        with pytest.raises(BadTree):
            tree_from_dict(loaded | spoil)
