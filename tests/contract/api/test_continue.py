"""POST /v1/search/{id}/continue: a search goes on exactly where it was, after a crash of its server as well."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes import FakePolicy, letters
from ramify.api.context import assemble
from ramify.engines import NamedPolicy, OtherPolicyOptions
from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree
from ramify.service.continuing import require_same_model
from ramify.service.errors import ServiceError
from ramify.settings import Settings

from .world import KEYS, SERVING, FakeEngines, World, a_world, events, hold, over_network, release, until

pytestmark = pytest.mark.anyio
WAVES = {"algorithm": "mcts", "schedule": "waves", "parallel": 3, "early_stop": "off"}
FEW = {**WAVES, "budget": {"simulations": 6}}


async def go_on(world: World, search: str, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    return await world.http.post(
        f"/v1/search/{search}/continue", json={"include_tree": True, **body}, headers=headers
    )


async def first_part(world: World, search: dict[str, Any] = FEW, **body: Any) -> dict[str, Any]:
    answer = await world.search(search=search, seed=1, include_tree=True, **body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tree_of(reply: dict[str, Any]) -> Tree:
    return tree_from_dict(reply["tree_document"])


async def test_a_search_goes_on_with_the_draws_it_has_and_both_parts_are_in_the_log(world: World) -> None:
    first = await first_part(world)
    drawn = world.engines.policy.generated
    answer = await go_on(world, first["id"], budget={"simulations": 12})
    assert answer.status_code == 200, answer.text
    reply = answer.json()
    part, tree = tree_of(first), tree_of(reply)
    assert reply["continues"] == first["id"] != reply["id"]
    assert answer.headers["x-ramify-tree"] == tree.id
    assert [node.tokens for node in tree.nodes[: len(part.nodes)]] == [node.tokens for node in part.nodes]
    assert reply["usage"]["simulations"] == 12
    assert reply["usage"]["completion_tokens"] == world.engines.policy.generated
    assert drawn == first["usage"]["completion_tokens"]
    assert [(row.tree_id, row.continues) for row in await world.logged()] == [
        (tree.id, part.id),
        (part.id, None),
    ]
    listed = (await world.http.get("/v1/trees")).json()["data"]
    assert [row["continues"] for row in listed] == [part.id, None]


async def test_the_tree_is_that_of_one_search_with_the_whole_budget(world: World) -> None:
    first = await first_part(world)
    then = tree_of((await go_on(world, first["tree"]["id"], budget={"simulations": 12})).json())
    whole = tree_of(await first_part(world, {**WAVES, "budget": {"simulations": 12}}))
    assert then.nodes == whole.nodes
    assert then.completions == whole.completions
    assert then.params == whole.params  # also the tokens that nobody named


async def test_a_third_part_goes_on_from_the_second_and_no_part_is_taken_on_twice(world: World) -> None:
    first = await first_part(world)
    second = (await go_on(world, first["id"], budget={"simulations": 9})).json()
    again = await go_on(world, first["id"], budget={"simulations": 9})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert f"was taken on already: go on from {second['id']}" in again.json()["error"]["message"]
    third = (await go_on(world, second["id"], budget={"simulations": 12})).json()
    assert third["continues"] == second["id"]


async def test_two_who_take_the_same_search_on_at_once_get_one_search(world: World) -> None:
    first = await first_part(world)
    both = await asyncio.gather(*(go_on(world, first["id"], budget={"simulations": 9 + i}) for i in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 409]


async def test_two_servers_on_one_log_do_not_go_on_from_the_same_search(world: World) -> None:
    first = await first_part(world)
    other = World(assemble(Settings(), world.engines, world.log), world.engines, world.log, world.http)
    async with over_network(other) as elsewhere:
        there = replace(other, http=elsewhere)
        refused = await go_on(there, first["id"], budget={"simulations": 1})
        assert refused.status_code == 400  # and the claim is free again
        hold(world.engines)
        asked = asyncio.create_task(go_on(world, first["id"], budget={"simulations": 12}))
        await until(lambda: world.engines.policy.running)
        answer = await go_on(there, first["id"], budget={"simulations": 12})
        assert answer.status_code == 409
        assert "is being taken on already, by srch_" in answer.json()["error"]["message"]
        release(world.engines)
        longer = (await asked).json()
        answer = await go_on(there, first["id"], budget={"simulations": 12})
        assert f"was taken on already: go on from {longer['id']}" in answer.json()["error"]["message"]


async def test_a_stream_tells_of_a_search_that_goes_on(world: World) -> None:
    first = await first_part(world)
    answer = await go_on(
        world, first["id"], budget={"simulations": 12}, stream=True, stream_options={"nodes": True}
    )
    told = events(answer.text)
    assert [told[0][0], told[-1][0]] == ["search.started", "search.completed"]
    assert told[-1][1]["continues"] == first["id"]


async def test_a_kept_answer_is_replayed_and_does_not_go_on_again(world: World) -> None:
    first = await first_part(world)
    asked: dict[str, Any] = {"budget": {"simulations": 9}, "headers": {"Idempotency-Key": "once"}}
    answers = [await go_on(world, first["id"], **asked) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    other = await go_on(world, first["id"], budget={"simulations": 10}, headers=asked["headers"])
    assert other.status_code == 422
    assert len(await world.logged()) == 2


async def test_the_metrics_count_only_what_is_new(world: World) -> None:
    first = await first_part(world)
    await go_on(world, first["id"], budget={"simulations": 12})
    text = (await world.http.get("/metrics")).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures["ramify_generated_tokens_total"]) == world.engines.policy.generated
    assert float(figures["ramify_simulations_total"]) == 12
    assert float(figures["ramify_scored_sequences_total"]) == world.engines.scorer.scored


@pytest.mark.parametrize(
    ("budget", "param", "said"),
    [
        ({}, "budget.simulations", "is 6, of which 6 are spent"),
        ({"simulations": 6}, "budget.simulations", "is 6, of which 6 are spent"),
        ({"simulations": 9, "tokens": 12}, "budget.tokens", "are spent: give a larger one"),
        ({"simulations": 9, "nodes": 1}, "budget.nodes", "are spent: give a larger one"),
        ({"simulations": 10_001}, "budget.simulations", "this server takes at most 10000"),
        ({"simulations": 9, "colour": 1}, "budget.colour", "unknown field"),
    ],
)
async def test_a_budget_that_is_spent_is_refused_by_name(
    world: World, budget: dict[str, Any], param: str, said: str
) -> None:
    first = await first_part(world)
    answer = await go_on(world, first["id"], budget=budget)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert said in answer.json()["error"]["message"]
    assert len(await world.logged()) == 1


async def test_what_cannot_go_on_says_why(world: World) -> None:
    batch = await world.http.post(
        "/v1/search/batch", json={"prompts": [{"prompt": "?\n"}], "budget": {"tokens": 60}}
    )
    settled = await first_part(world, {"algorithm": "best_of_n", "budget": {"simulations": 2}})
    for search, said in (
        (batch.json()["results"][0]["id"], "it shared the budget of a batch"),
        ("srch_" + "0" * 32, "no search or tree"),
        ("nothing", "is not the id of a search or tree"),
    ):
        answer = await go_on(world, search, budget={"simulations": 50})
        assert answer.status_code in (404, 409)
        assert said in answer.json()["error"]["message"]
    tree = tree_of(settled)
    tree.id, tree.search_state = "tree_" + "1" * 32, None
    await world.log.append(tree)
    answer = await go_on(world, tree.id, budget={"simulations": 50})
    assert "it has kept no state" in answer.json()["error"]["message"]
    tree = tree_of(settled)
    tree.id, tree.stop_reason = "tree_" + "2" * 32, "exhausted"
    await world.log.append(tree)
    answer = await go_on(world, tree.id, budget={"simulations": 50})
    assert "nothing was left to draw (exhausted)" in answer.json()["error"]["message"]
    tree = tree_of(settled)
    assert tree.search_state is not None
    tree.id = "tree_" + "3" * 32
    tree.search_state = replace(tree.search_state, algorithm={"gone": 1})
    await world.log.append(tree)
    answer = await go_on(world, tree.id, budget={"simulations": 50})
    assert answer.status_code == 409
    assert "is not what it was when this search ran: gone" in answer.json()["error"]["message"]
    assert not world.context.searches.admission.running


async def test_a_running_search_is_left_alone(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search(search=FEW))
    await until(lambda: world.context.searches.running)
    (running,) = world.context.searches.running.values()
    answer = await go_on(world, running.id, budget={"simulations": 12})
    assert answer.status_code == 409
    assert "is running: wait until it has ended, or cancel it" in answer.json()["error"]["message"]
    release(world.engines)
    assert (await asked).status_code == 200


async def test_a_cancelled_search_goes_on(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search(search=FEW, include_tree=True))
    await until(lambda: world.engines.policy.running)
    (running,) = world.context.searches.running.values()
    await world.http.post(f"/v1/search/{running.id}/cancel")
    release(world.engines)
    part = tree_of((await asked).json())
    assert part.search_state is not None
    assert part.search_state.plans
    tree = tree_of((await go_on(world, part.id)).json())
    assert (tree.status, tree.usage.simulations) == ("complete", 6)


async def test_only_its_own_key_takes_a_search_on_and_train_is_never_gained(keyed: World) -> None:
    alice, bob = keyed.as_key("alice"), keyed.as_key("bob")
    first = await first_part(keyed, headers=alice)
    other = await go_on(keyed, first["id"], budget={"simulations": 9}, headers=bob)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "not_found")
    mine = (await go_on(keyed, first["id"], budget={"simulations": 9}, headers=alice)).json()
    assert tree_of(mine).train is False
    taught = await first_part(keyed, headers=bob)
    then = (await go_on(keyed, taught["id"], budget={"simulations": 9}, train=False, headers=bob)).json()
    assert (tree_of(taught).train, tree_of(then).train) == (True, False)
    assert len(KEYS) == 3


def test_a_search_of_another_release_or_model_cannot_go_on() -> None:
    tree = Tree(prompt_tokens=(1,), params=None, sampling=None, seed=1, model="letters")  # type: ignore[arg-type]
    tree.add(tree.root, release="v000001")
    with pytest.raises(
        ServiceError, match="it began with the release v000001, and fake is served: activate v000001"
    ):
        require_same_model(tree, SERVING, {})
    with pytest.raises(ServiceError, match="searched with the model 'letters', and 'numbers' is served"):
        require_same_model(tree, replace(SERVING, name="numbers"), {})


def test_a_search_whose_other_policy_has_changed_cannot_go_on() -> None:
    tree = Tree(prompt_tokens=(1,), params=None, sampling=None, seed=1, model=SERVING.name)  # type: ignore[arg-type]
    tree.add(tree.root, policy="proofs", release="v000007")
    options = OtherPolicyOptions(system="Prove it.")

    def of(release: str | None) -> dict[str, NamedPolicy]:
        return {"proofs": NamedPolicy(FakePolicy(letters({"a": 1.0}, 1)), options, release)}

    require_same_model(tree, SERVING, of("v000007"))
    for other, now in (("v000008", "v000008"), (None, SERVING.release)):
        with pytest.raises(
            ServiceError, match=f"its policy 'proofs' drew with v000007, and now draws with {now}"
        ):
            require_same_model(tree, SERVING, of(other))


async def test_if_the_client_leaves_the_longer_search_is_logged_as_cancelled(world: World) -> None:
    first = await first_part(world)
    hold(world.engines)
    async with over_network(world) as http:
        asked = asyncio.create_task(
            http.post(
                f"/v1/search/{first['id']}/continue",
                json={"budget": {"simulations": 12}},
                timeout=httpx.Timeout(30, read=0.5),
            )
        )
        await until(lambda: world.context.searches.running)
        with pytest.raises(httpx.ReadTimeout):
            await asked
        await until(lambda: not world.context.searches.running)
    assert [(row.status, row.continues) for row in await world.logged()] == [
        ("cancelled", first["tree"]["id"]),
        ("complete", None),
    ]


# -- after a crash -----------------------------------------------------------------------------------------------


def crashed(folder: Path, to: Path) -> Path:
    """Copy the files that a server leaves which is killed now."""
    to.mkdir()
    for file in folder.glob("trees.db*"):
        shutil.copy(file, to)
    return to


async def test_an_interrupted_search_goes_on_from_its_last_commit_after_a_restart(tmp_path: Path) -> None:
    rule = letters({chr(97 + i): 1 / 26 for i in range(26)}, 3)
    engines = FakeEngines(policy=GatedAfter(rule, free=4))
    (tmp_path / "first").mkdir()
    async with a_world(tmp_path / "first", engines, checkpoints={"seconds": 1e-6}) as world:
        asked = asyncio.create_task(world.search(search={**FEW, "parallel": 1}, seed=1))
        await until(lambda: engines.policy.running == 1)
        (running,) = world.context.searches.running.values()
        await until(lambda: world.log.commits and not world.log.pending)
        assert (await world.http.get(f"/v1/search/{running.id}")).json()["status"] == "running"
        landed = running.search.progress().simulations
        left = crashed(tmp_path / "first", tmp_path / "second")
        engines.policy.gate.set()  # type: ignore[union-attr]
        whole = (await asked).json()
    async with a_world(left) as world:
        await world.context.searches.checkpoints.look()
        state = (await world.http.get(f"/v1/search/{whole['id']}")).json()
        assert (state["status"], state["stop_reason"]) == ("interrupted", "crash")
        assert 1 <= state["usage"]["simulations"] <= landed
        assert state["answer"] is not None
        assert (await world.logged())[0].status == "interrupted"
        before = state["usage"]["completion_tokens"]
        reply = (await go_on(world, whole["id"])).json()
        assert (reply["status"], reply["continues"]) == ("complete", whole["id"])
        assert reply["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
        assert world.engines.policy.generated == reply["usage"]["completion_tokens"] - before
        assert reply["answer"]["text"] == whole["answer"]["text"]
        assert (await world.log.verify()).ok


class GatedAfter(FakePolicy):
    """Its first requests are answered at once, the others wait at the gate."""

    def __init__(self, rule: Any, free: int) -> None:
        super().__init__(rule, gate=asyncio.Event())
        self.free = free

    async def _take_time(self) -> None:
        if len(self.requests) > self.free:
            await super()._take_time()


async def test_without_checkpoints_a_crash_leaves_nothing_of_a_running_search(tmp_path: Path) -> None:
    engines = FakeEngines(policy=GatedAfter(letters({"a": 0.5, "b": 0.5}, 3), free=4))
    (tmp_path / "first").mkdir()
    async with a_world(tmp_path / "first", engines, checkpoints={"seconds": 0}) as world:
        asked = asyncio.create_task(world.search(search={**FEW, "parallel": 1}))
        await until(lambda: engines.policy.running == 1)
        (running,) = world.context.searches.running.values()
        left = crashed(tmp_path / "first", tmp_path / "second")
        engines.policy.gate.set()  # type: ignore[union-attr]
        await asked
    async with a_world(left) as world:
        await world.context.searches.checkpoints.look()
        assert (await world.http.get(f"/v1/search/{running.id}")).status_code == 404
