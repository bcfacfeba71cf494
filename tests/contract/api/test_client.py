"""The Python client against a whole server around a fake model, through real HTTP messages."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from ramify_client import (
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    NotFound,
    aio,
    client,
)

from .client_servers import served, served_at_an_address
from .world import PROMPT, a_world, hold, over_network, release

pytestmark = pytest.mark.anyio
LONG = {"algorithm": "best_of_n", "budget": {"simulations": 10_000}}
"""A search that runs until somebody ends it; a tree would sometimes be exhausted before."""


async def test_a_search_its_tree_and_its_feedback_come_back_typed(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        found = await client.search(PROMPT, search={"budget": {"simulations": 4}}, seed=1, n=2)
        assert found.status == "complete"
        assert found.answer is not None
        assert found.usage.simulations == 4
        assert (await client.get_search(found.id)).answer == found.answer
        tree = await client.trees.get(found.tree.id)
        assert tree.tree["id"] == found.tree.id
        assert (await client.trees.dot(found.tree.id)).startswith("digraph")
        said = await client.trees.feedback(found.tree.id, 1.0, comment="checked")
        assert (said.outcome, said.comment) == (1.0, "checked")
        (listed,) = (await client.trees.list()).data
        assert listed.id == found.tree.id
        assert [r.kind async for r in client.trees.read()] == ["tree", "outcome"]
        await client.trees.delete(found.tree.id)
        with pytest.raises(NotFound):
            await client.trees.get(found.tree.id)


async def test_a_stream_gives_started_progress_and_completed(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        async with client.stream(PROMPT, search={"budget": {"simulations": 4}}) as events:
            seen = [event async for event in events]
        assert (seen[0].kind, seen[-1].kind) == ("started", "completed")
        assert seen[-1].result is not None
        assert seen[-1].result.status == "complete"


async def test_a_reader_moves_its_cursor_and_a_stale_version_is_a_conflict(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        await client.search(PROMPT, search={"budget": {"simulations": 2}})
        first = await client.consumers.put("reader", cursor=0)
        moved = await client.consumers.put(
            "reader", version=first.version, cursor=1, owner="me", lease_seconds=60
        )
        assert (moved.cursor, moved.owner, moved.high_water) == (1, "me", 1)
        with pytest.raises(Conflict) as stale:
            await client.consumers.put("reader", version=first.version, cursor=1)
        assert stale.value.code == "stale_version"
        assert (await client.consumers.get("reader")).version == moved.version


async def test_a_cursor_goes_back_only_where_it_is_told_to_rewind(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        await client.search(PROMPT, search={"budget": {"simulations": 2}})
        there = await client.consumers.put("reader", cursor=1)
        with pytest.raises(BadRequest, match="rewind"):
            await client.consumers.put("reader", version=there.version, cursor=0)
        back = await client.consumers.put("reader", version=there.version, cursor=0, rewind=True)
        assert back.cursor == 0


async def test_models_version_readiness_and_values(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        model = (await client.models()).data[0]
        assert model.id == "letters"
        assert await client.model("letters") == model
        with pytest.raises(NotFound):
            await client.model("gpt/4")
        assert (await client.version()).model == "letters"
        assert await client.ready()
        assert (await client.value(PROMPT, ["aa", "b"])).values[0] > 0


async def test_an_error_names_the_field_and_the_request(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        with pytest.raises(BadRequest) as refused:
            await client.search(PROMPT, search={"width": 0})
        assert (refused.value.status, refused.value.param) == (400, "search.width")
        assert refused.value.request_id


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type[Any]) -> dict[str, list[str]]:
        found = ((name, value) for name, value in vars(kind).items() if not name.startswith("_"))
        return {name: list(inspect.signature(value).parameters) for name, value in found}

    for one in ("Client", "Trees", "Consumers", "Admin", "SearchStream", "BatchStream"):
        assert methods(getattr(client, one)) == methods(getattr(aio, f"Async{one}"))


async def test_the_synchronous_client_searches_streams_and_reads_the_log(tmp_path: Path) -> None:
    def use(url: str) -> None:
        with Client(url) as client:
            found = client.search(PROMPT, search={"budget": {"simulations": 4}})
            assert found.status == "complete"
            with client.stream(PROMPT, search={"budget": {"simulations": 4}}) as events:
                kinds = [event.kind for event in events]
            assert (kinds[0], kinds[-1]) == ("started", "completed")
            with client.follow(found.id) as events:
                assert [event.kind for event in events] == ["started", "completed"]
            branched = client.trees.branch(found.tree.id, 0, search={"budget": {"simulations": 2}})
            assert [record.tree_id for record in client.trees.read(after=1)][-1] == branched.tree.id
            assert [record.seq for record in client.trees.read(limit=2)] == [1, 2]
            with pytest.raises(NotFound):
                client.trees.get("tree_nowhere")

    async with a_world(tmp_path) as world, over_network(world) as http:
        await asyncio.to_thread(use, str(http.base_url))


async def test_prompts_share_a_budget_whole_and_streamed(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        found = await client.search_batch([PROMPT, {"prompt": PROMPT}], {"tokens": 200}, seed=1)
        assert len(found.results) == 2
        assert found.usage.completion_tokens == sum(found.usage.spread) <= 200
        async with client.stream_batch([PROMPT, PROMPT], {"tokens": 200}) as events:
            told = [event async for event in events]
            assert events.id == told[0].id
        assert (told[0].kind, told[-1].kind, told[-1].index) == ("started", "completed", None)
        answered = {event.index: event.result for event in told if event.kind == "answered"}
        assert sorted(answered) == [0, 1]
        assert all(result is not None and result.answer for result in answered.values())
        with pytest.raises(NotFound):
            await client.cancel_batch(found.id)


async def test_a_streamed_batch_is_cancelled_as_one(tmp_path: Path) -> None:
    endless = {"tokens": 200_000, "least_gain": 0.0}
    statuses = []
    async with (
        served_at_an_address(tmp_path) as client,
        client.stream_batch([PROMPT, PROMPT], endless, search={"algorithm": "best_of_n"}) as events,
    ):
        async for event in events:
            if event.kind == "started":
                await events.cancel()
            if event.kind == "answered" and event.result is not None:
                statuses.append(event.result.status)
    assert statuses == ["cancelled", "cancelled"]


async def test_leaving_a_stream_ends_the_search_on_the_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world, over_network(world) as http:
        async with AsyncClient(str(http.base_url)) as client, client.stream(PROMPT) as events:
            async for event in events:
                assert event.kind == "started"
                hold(world.engines)
                break
        release(world.engines)
        async with asyncio.timeout(10):
            while not (found := await world.logged()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert (found[0].status, found[0].tree_id) == ("cancelled", event.id.replace("srch", "tree"))


async def test_a_search_is_followed_by_its_id_and_goes_on_when_a_follower_leaves(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world, over_network(world) as http:
        hold(world.engines)
        async with (
            AsyncClient(str(http.base_url)) as client,
            client.stream(PROMPT, search={"budget": {"simulations": 64}}) as events,
        ):
            began = aiter(events)
            number = (await anext(began)).id
            async with client.follow(number) as left:
                assert (await anext(aiter(left))).kind == "started"
            async with client.follow(number) as followed:
                assert followed.id == number
                release(world.engines)
                seen = [event async for event in followed]
            told = [event async for event in began]
            async with client.follow(number) as ended:
                assert [event.kind async for event in ended] == ["started", "completed"]
    assert (seen[0].kind, seen[-1].kind) == ("started", "completed")
    assert seen[-1].result is not None
    assert seen[-1].result.status == "complete"
    assert seen[-1].result == told[-1].result


async def test_whoever_follows_a_search_may_cancel_it(tmp_path: Path) -> None:
    async with served_at_an_address(tmp_path) as client:
        async with client.stream(PROMPT, search=LONG) as events:
            number = (await anext(aiter(events))).id
            async with client.follow(number) as followed:
                cancelled = await followed.cancel()
                assert cancelled is not None
                assert (cancelled.id, cancelled.status) == (number, "cancelled")
                assert [event.kind async for event in followed][-1] == "completed"
        with pytest.raises(NotFound):
            async with client.follow("srch_nowhere"):
                pass


async def test_a_stream_that_is_cancelled_still_brings_its_answer(tmp_path: Path) -> None:
    async with served_at_an_address(tmp_path) as client:
        async with client.stream(PROMPT, search=LONG) as events:
            async for event in events:
                if event.kind == "progress":
                    cancelled = await events.cancel()
                    assert cancelled is not None
                    assert (cancelled.id, cancelled.status) == (event.id, "cancelled")
        assert event.result is not None
        assert event.result.status == "cancelled"


async def test_a_tree_is_branched_and_streamed_from_a_node(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        found = await client.search(PROMPT, search={"budget": {"simulations": 4}})
        few: dict[str, Any] = {"budget": {"simulations": 2}}
        branched = await client.trees.branch(found.tree.id, 0, search=few)
        assert (await client.trees.get(branched.tree.id)).tree["parent_tree"] == found.tree.id
        async with client.trees.stream_branch(found.tree.id, 0, search=few) as events:
            assert [event.kind async for event in events][-1] == "completed"
