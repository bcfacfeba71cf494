"""Modules of the viewer that draw nothing, in Node."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fakes import FakePolicy, letters
from node import node
from ramify.search.budget import Budget
from ramify.search.builder import TreeBuilder
from ramify.search.codec import tree_to_dict
from ramify.search.records import BudgetLimits
from ramify.search.selection import arms, puct_scores
from ramify.search.tree import Tree
from search_worlds import REFINE, World, ran, words

TREE = Path(str(files("ramify") / "web" / "tree"))


@pytest.mark.parametrize(
    ("chat", "system", "field"),
    [
        (False, "", {"prompt": "3 5 to 8"}),
        (True, "", {"messages": [{"role": "user", "content": "3 5 to 8"}]}),
        (
            True,
            "Be brief.",
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "3 5 to 8"},
                ]
            },
        ),
    ],
)
def test_the_form_sends_a_text_or_a_conversation(chat: bool, system: str, field: dict[str, Any]) -> None:
    given = ["3 5 to 8", chat, system]
    assert said("../pages/search_form.js", "promptOf", "promptOf(...given)", given) == field


def said(module: str, names: str, expression: str, given: object) -> Any:
    """Evaluate an expression over `given`, with `names` of a module."""
    program = (
        f"import {{ {names} }} from {json.dumps((TREE / module).as_uri())};"
        'import { Model } from "' + (TREE / "model.js").as_uri() + '";'
        'import { readFileSync } from "node:fs";'
        f"const given = JSON.parse(readFileSync(0)); console.log(JSON.stringify({expression}));"
    )
    return json.loads(node(TREE, "--input-type=module", "--eval", program, given=json.dumps(given)))


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("3 + 5 = 8\n", "3 * 5 = 15\n", ["=3 ", "-+", "+*", "= 5 = ", "-8", "+15", "=\n"]),
        ("same", "same", ["=same"]),
        ("", "new", ["+new"]),
        ("gone", "", ["-gone"]),
        ("a b c d", "a c d e", ["=a ", "-b ", "=c d", "+ e"]),
        ("", "", []),
    ],
)
def test_a_difference_names_what_is_gone_and_what_is_new(before: str, after: str, parts: list[str]) -> None:
    found = said("difference.js", "difference", "difference(...given)", [before, after])
    signs = {"same": "=", "gone": "-", "new": "+"}
    assert [signs[kind] + text for kind, text in found] == parts


def test_the_parts_of_a_difference_join_to_both_texts() -> None:
    texts = ["def f(x):\n    return x\n", "def f(x, y):\n    z = x + y\n    return z\n"]
    found = said("difference.js", "difference", "difference(...given)", texts)
    for text, kind in zip(texts, ("gone", "new"), strict=True):
        assert "".join(part for of, part in found if of in ("same", kind)) == text


def test_texts_beyond_the_limit_differ_as_a_whole() -> None:
    texts = [" ".join(f"{name}{i}" for i in range(1500)) for name in "ab"]
    found = said("difference.js", "difference", "difference(...given)", texts)
    assert len(found) <= 2 * 3000


def refined() -> Tree:
    budget = BudgetLimits(simulations=60)
    return ran(words, action=REFINE, select="puct", width=3, max_depth=3, budget=budget).tree


def test_the_page_finds_the_answer_that_another_betters() -> None:
    tree = refined()
    of = (
        "given.nodes.map(({ id }) => { const model = Model.of(given);"
        "return [model.text(id), model.bettered(id)?.id ?? null]; })"
    )
    found = said("model.js", "kindOf", of, tree_to_dict(tree))
    for node_, (text, bettered) in zip(tree.nodes, found, strict=True):
        assert text == tree.text(node_)
        assert bettered == (node_.parent if node_.depth > 1 else None)


def test_the_page_offers_the_arms_of_a_refinement_that_the_search_does() -> None:
    tree = refined()
    expression = (
        "(() => { const model = Model.of(given), unseen = unseenBelow(model); return model.nodes.map((node) => {"
        "const open = armsAt(model, node, unseen).filter((arm) => arm.open);"
        "return [open.map((arm) => arm.node?.id ?? null), open.map((arm) => arm.unseen),"
        "puct(open, model.params).map(({ score }) => score)]; }); })()"
    )
    found = said("bandit.js", "unseenBelow, armsAt, puct", expression, tree_to_dict(tree))
    builder = TreeBuilder(tree, Budget(tree.params.budget, final=0, clock=lambda: 0.0))
    for leaf in tree.nodes:
        if leaf.terminal is not None:
            builder._see(leaf)
    assert any(node_.children for node_ in tree.nodes[1:])
    for node_, (ids, unseen, scores) in zip(tree.nodes, found, strict=True):
        fresh = builder.unseen(node_)
        choices = arms(node_, tree.children(node_), fresh=fresh, revisit=False, unseen=builder.unseen_below)
        assert ids == [arm.node.id if arm.node else None for arm in choices]
        assert unseen == pytest.approx([arm.unseen for arm in choices])
        assert scores == pytest.approx(puct_scores(choices, tree.params.c_init, tree.params.c_base))


def joint() -> World:
    """A search with two policies that write nothing alike."""
    other = FakePolicy(letters({"y": 0.5, "z": 0.5}, 2))
    names, budget = ("policy", "other"), BudgetLimits(simulations=6)
    return ran(
        letters({"a": 0.7, "b": 0.3}, 2), others={"other": other}, policies=names, budget=budget, parallel=1
    )


def test_the_page_knows_what_is_left_to_draw_for_several_policies() -> None:
    found = joint()
    expression = "[...unseenBelow(Model.of(given)).fresh]"
    left = said("bandit.js", "unseenBelow", expression, tree_to_dict(found.tree))
    builder = found.search.builder
    assert left == pytest.approx([builder.unseen(node) for node in found.tree.nodes])
    assert len(set(left)) > 1


def test_a_policy_has_a_colour_and_a_node_names_those_that_drew_it() -> None:
    tree = joint().tree
    expression = "Model.of(given).nodes.map((node) => policyFigure(Model.of(given), node.policy))"
    colours = said("paint.js", "policyFigure", expression, tree_to_dict(tree))
    assert colours == [{None: None, "policy": 0, "other": 1}[node.policy] for node in tree.nodes]
    node_ = {"policy": "other", "drawn_by": {"policy": 2, "other": 1}}
    assert said("model.js", "drawers", "drawers(given)", node_) == "other (1), policy (2)"
    assert said("model.js", "drawers", "drawers(given)", {"policy": "other"}) == "other"
