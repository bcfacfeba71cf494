"""POST /v1/trees/{tree}/branch: searching on from a node of a logged tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree

from .world import KEYS, World, a_world, events

pytestmark = pytest.mark.anyio
SMALL = {"budget": {"simulations": 4}}


async def a_tree(world: World, **body: Any) -> Tree:
    reply = (await world.search(search=SMALL, seed=1, include_tree=True, **body)).json()
    return tree_from_dict(reply["tree_document"])


async def branch(world: World, tree: str, **body: Any) -> Any:
    headers = body.pop("headers", {})
    return await world.http.post(
        f"/v1/trees/{tree}/branch", json={"search": SMALL, "include_tree": True, **body}, headers=headers
    )


async def test_a_branch_starts_from_the_very_tokens_that_lead_to_its_node(world: World) -> None:
    parent = await a_tree(world)
    node = next(n for n in parent.nodes if n.depth == 1)
    answer = await branch(world, parent.id, node=node.id)
    assert answer.status_code == 200, answer.text
    tree = tree_from_dict(answer.json()["tree_document"])
    assert tree.prompt_tokens == parent.sequence(node)
    assert tree.prompt == parent.prompt + node.text
    assert (tree.parent_tree, tree.origin and tree.origin.node) == (parent.id, node.id)
    assert tree.origin is not None
    assert (tree.origin.text, tree.origin.tokens) == (node.text, len(node.tokens))
    assert tree.nodes[0].tokens == ()


async def test_answers_of_a_branch_are_whole_and_its_budget_counts_new_tokens_only(world: World) -> None:
    parent = await a_tree(world)
    node = next(n for n in parent.nodes if n.depth == 2)
    reply = (await branch(world, parent.id, node=node.id, search={"budget": {"simulations": 3}})).json()
    assert reply["answer"]["text"].startswith(parent.text(node))
    assert reply["answer"]["text"].count("\n") == 3
    tree = tree_from_dict(reply["tree_document"])
    assert tree.usage.completion_tokens == sum(n.tokens_spent for n in tree.nodes)
    assert max(n.length for n in tree.nodes) <= 3, "one more line and the end"


async def test_the_task_judges_the_whole_answer_of_a_branch(world: World) -> None:
    parent = await a_tree(world, task={"name": "exact", "problem": {"answer": "e"}})
    node = next(n for n in parent.nodes if n.depth == 1)
    first = node.text.strip()
    search = {"grader": "verifier", "budget": {"simulations": 8}}
    reply = (await branch(world, parent.id, node=node.id, search=search)).json()
    tree = tree_from_dict(reply["tree_document"])
    assert (tree.task, tree.problem) == (parent.task, parent.problem)
    assert tree.complete()
    for leaf in tree.complete():
        assert tree.text(leaf).startswith(f"{first}\n")
        assert leaf.outcome == float(tree.text(leaf).split()[-1] == "e")


async def test_a_branch_of_a_branch_knows_the_whole_answer(world: World) -> None:
    parent = await a_tree(world)
    first = next(n for n in parent.nodes if n.depth == 1)
    middle = tree_from_dict((await branch(world, parent.id, node=first.id)).json()["tree_document"])
    second = next(n for n in middle.nodes if n.depth == 1)
    last = tree_from_dict((await branch(world, middle.id, node=second.id)).json()["tree_document"])
    assert last.origin is not None
    assert last.origin.text == first.text + second.text
    assert last.prompt == parent.prompt + first.text + second.text
    assert last.prompt_tokens[-last.origin.tokens :] == first.tokens + second.tokens


async def test_what_a_branch_cannot_start_from_is_refused_by_name(world: World) -> None:
    parent = await a_tree(world)
    finished = parent.complete()[0]
    for body, param in (
        ({"node": len(parent.nodes)}, "node"),
        ({"node": finished.id}, "node"),
        ({"node": -1}, "node"),
        ({"node": 0, "prompt": "x"}, "prompt"),
        ({"node": 0, "search": {"algorithm": "best_of_n", "width": 2}}, "search.width"),
        ({}, "node"),
    ):
        refused = await branch(world, parent.id, **body)
        assert refused.status_code == 400, (body, refused.text)
        assert refused.json()["error"]["param"] == param, body
    assert (await branch(world, "tree_" + "0" * 32, node=0)).status_code == 404
    assert (await branch(world, "nonsense", node=0)).status_code == 404


async def test_the_header_that_says_how_to_search_is_refused_by_name(world: World) -> None:
    parent = (await world.search()).json()["tree"]["id"]
    headers = {"x-ramify-search": "beam"}
    refused = await world.http.post(f"/v1/trees/{parent}/branch", json={"node": 0}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-ramify-search")
    assert len(await world.logged()) == 1


async def test_a_tree_of_another_model_is_no_ground_to_branch_from(world: World) -> None:
    parent = await a_tree(world)
    other = replace(parent, id="tree_" + "f" * 32, model="another")
    await world.log.append(other, "")
    refused = await branch(world, other.id, node=0)
    assert refused.status_code == 409
    assert "another" in refused.json()["error"]["message"]


async def test_a_key_branches_from_its_own_trees_only(keyed: World) -> None:
    alice, bob = keyed.as_key("alice"), keyed.as_key("bob")
    reply = (await keyed.search(search=SMALL, headers=alice)).json()
    assert (await branch(keyed, reply["tree"]["id"], node=0, headers=bob)).status_code == 404
    assert (await branch(keyed, reply["tree"]["id"], node=0, headers=alice)).status_code == 200
    assert (await branch(keyed, reply["tree"]["id"], node=0)).status_code == 401
    trainer = keyed.as_key("trainer")
    assert (await branch(keyed, reply["tree"]["id"], node=0, headers=trainer)).status_code == 403
    assert {row.key_id for row in await keyed.logged()} == {KEYS[0]["name"]}


async def test_what_a_tree_may_not_teach_its_branches_may_not_either(world: World) -> None:
    parent = await a_tree(world, train=False)
    tree = tree_from_dict((await branch(world, parent.id, node=0)).json()["tree_document"])
    assert tree.train is False


async def test_a_branch_streams_and_is_replayed_by_its_idempotency_key(world: World) -> None:
    parent = await a_tree(world)
    streamed = await branch(world, parent.id, node=0, stream=True)
    assert [name for name, _ in events(streamed.text)][-1] == "search.completed"
    key = {"Idempotency-Key": "once"}
    first = await branch(world, parent.id, node=1, headers=key)
    again = await branch(world, parent.id, node=1, headers=key)
    assert first.json()["id"] == again.json()["id"]
    other = await a_tree(world)
    assert (await branch(world, other.id, node=1, headers=key)).status_code == 422


async def test_a_branched_tree_survives_the_log(tmp_path: Any) -> None:
    async with a_world(tmp_path) as world:
        parent = await a_tree(world)
        reply = (await branch(world, parent.id, node=1)).json()
        entry = await world.log.get(reply["tree"]["id"])
        assert entry is not None
        assert entry.tree() == tree_from_dict(reply["tree_document"])
