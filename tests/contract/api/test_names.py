"""Searches that are asked for by the model's name or by a header, and the tree's id in headers of the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from ramify.api.names import aliases_of
from ramify.search.algorithms import ALGORITHMS
from ramify.settings import BadSettings, Settings

from .openai_asks import BOTH, ask, frames
from .world import PROMPT, SERVING, FakeEngines, World, a_world, over_network

pytestmark = pytest.mark.anyio
DEEP = {"algorithm": "best_of_n", "budget": {"simulations": 5}, "train": False}
ALIASES = {"deep": {"search": DEEP}, "judged": {"search": {"task": {"name": "none"}}}}
SMALL = {"budget": {"simulations": 3}}


@pytest.fixture
async def named(tmp_path: Path) -> AsyncIterator[World]:
    """A server with aliases."""
    async with a_world(tmp_path, aliases=ALIASES) as world:
        yield world


async def newest(world: World) -> dict[str, Any]:
    tree: dict[str, Any] = (await world.http.get(f"/v1/trees/{(await world.logged())[0].tree_id}")).json()
    return tree["tree"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_models_name_with_an_algorithm_searches(world: World, algorithm: str) -> None:
    for spelling in {algorithm, algorithm.replace("_", "-")}:
        reply = await ask(world, model=f"letters:{spelling}", max_tokens=3)
        assert (reply.status_code, reply.json()["model"]) == (200, "letters")
        assert (await newest(world))["params"]["algorithm"] == algorithm


@BOTH
@pytest.mark.parametrize("name", ["deep", "letters:deep"])
async def test_an_alias_searches_as_its_operator_says(named: World, route: str, name: str) -> None:
    assert (await ask(named, route, model=name)).status_code == 200
    tree = await newest(named)
    assert (tree["params"]["algorithm"], tree["params"]["budget"]["simulations"]) == ("best_of_n", 5)
    assert tree["train"] is False


async def test_an_alias_is_a_model_of_a_native_search_too(named: World) -> None:
    reply = await named.search(model="deep", n=2)
    assert (reply.status_code, reply.json()["model"]) == (200, "letters")
    tree = await newest(named)
    assert (tree["params"]["algorithm"], tree["train"]) == ("best_of_n", False)
    await named.search(model="deep", train=True)
    assert (await newest(named))["train"] is True
    assert (await named.search(headers={"x-ramify-search": "beam"})).status_code == 200
    assert (await newest(named))["params"]["algorithm"] == "beam"


@BOTH
@pytest.mark.parametrize("header", ["deep", "best-of-n", json.dumps(DEEP)])
async def test_a_header_switches_search_on(named: World, route: str, header: str) -> None:
    reply = await ask(named, route, headers={"x-ramify-search": header})
    assert reply.json()["ramify"]["status"] == "complete"
    assert (await newest(named))["params"]["algorithm"] == "best_of_n"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("chess", "nor one of mcts"),
        ("{", "JSON"),
        ('{"widht": 2}', "did you mean width?"),
        ('{"budget": {"tokens": "many"}}', "budget.tokens"),
        ('{"width": 1e9}', "width"),
        ("[1]", "neither a JSON object"),
        ("x" * 8193, "8192"),
    ],
)
async def test_a_malformed_header_is_refused_by_name(world: World, header: str, said: str) -> None:
    reply = await ask(world, headers={"x-ramify-search": header})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], said in error["message"]) == (400, "x-ramify-search", True), (
        error
    )
    assert world.engines.plain.bodies == await world.logged() == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"model": "letters:mcts", "search": SMALL}, {}),
        ({"search": SMALL}, {"x-ramify-search": "mcts"}),
        ({"model": "letters:mcts"}, {"x-ramify-search": "mcts"}),
    ],
)
async def test_a_search_that_is_given_twice_is_refused_by_name(
    world: World, body: dict[str, Any], headers: dict[str, str]
) -> None:
    for path in ("/v1/completions", "/v1/search"):
        reply = await world.http.post(path, json={"prompt": PROMPT, **body}, headers=headers)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "search")
    assert await world.logged() == []


async def test_one_idempotency_key_is_one_search_however_it_is_asked_for(named: World) -> None:
    key = {"Idempotency-Key": "k"}
    by_name = await ask(named, model="letters:deep", headers=key)
    by_header = await ask(named, model="letters", headers={**key, "x-ramify-search": "deep"})
    assert by_name.content == by_header.content
    assert by_name.headers["x-ramify-tree"] == by_header.headers["x-ramify-tree"]
    assert len(await named.logged()) == 1


async def test_every_name_is_listed_and_found(named: World) -> None:
    models = (await named.http.get("/v1/models")).json()["data"]
    assert [m["id"] for m in models[:2]] == ["letters", "letters:mcts"]
    assert {m["id"] for m in models} >= {"letters:best-of-n", "letters:self-consistency", "deep", "judged"}
    assert len(models) == 1 + len(ALGORITHMS) + len(ALIASES)
    for model in models:
        assert (await named.http.get(f"/v1/models/{model['id']}")).json() == model
        assert model["parent"] == (None if model["id"] == "letters" else "letters")
    assert next(m["search"] for m in models if m["id"] == "deep") == DEEP


async def test_without_a_value_model_every_search_is_listed(tmp_path: Path) -> None:
    async with a_world(tmp_path, FakeEngines(serving=replace(SERVING, value=None))) as world:
        ids = [m["id"] for m in (await world.http.get("/v1/models")).json()["data"]]
    assert {"letters:self-consistency", "letters:mcts"} <= set(ids)


@pytest.mark.parametrize("name", ["letters:chess", "deep", "other:mcts", "letters:", ":mcts"])
async def test_a_name_that_nobody_gave_is_an_unknown_model(world: World, name: str) -> None:
    for path in ("/v1/completions", "/v1/search"):
        reply = await world.http.post(path, json={"prompt": PROMPT, "model": name})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"widht": 2}, r"aliases.deep.search: widht: unknown field; did you mean width\?"),
        ({"width": 2.5}, "width"),
        ({"algorithm": "best_of_n", "width": 2}, "width: has no effect with algorithm 'best_of_n'"),
        ({"budget": {"tokens": 0}}, "budget.tokens"),
        ({"task": {"name": "chess"}}, "task.name"),
    ],
)
def test_an_alias_that_no_request_could_ask_for_is_refused_at_the_start(
    search: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadSettings, match=said):
        aliases_of(Settings(aliases={"deep": {"search": search}}))
    with pytest.raises(BadSettings, match="name of an algorithm"):
        aliases_of(Settings(aliases={"best-of-n": {"search": {}}}))


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_the_trees_id_comes_back_as_a_header(world: World, route: str, stream: bool) -> None:
    reply = await ask(world, route, search=SMALL, stream=stream)
    (row,) = await world.logged()
    assert reply.headers["x-ramify-tree"] == row.tree_id
    assert reply.headers["x-ramify-search-id"] == row.tree_id.replace("tree_", "srch_")
    shown = frames(reply.text)[0] if stream else reply.json()
    assert shown["ramify"]["tree"]["id"] == row.tree_id


@pytest.mark.parametrize("stream", [False, True])
async def test_a_native_search_and_a_branch_say_their_tree_in_a_header_too(
    world: World, stream: bool
) -> None:
    first = await world.search(search=SMALL, stream=stream)
    tree = first.headers["x-ramify-tree"]
    second = await world.http.post(
        f"/v1/trees/{tree}/branch", json={"node": 0, "stream": stream, "search": SMALL}
    )
    assert {tree, second.headers["x-ramify-tree"]} == {row.tree_id for row in await world.logged()}


async def test_openais_client_searches_by_name_and_reads_the_trees_header(named: World) -> None:
    async with over_network(named) as http:
        client = AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
        async with client:
            raw = await client.chat.completions.with_raw_response.create(
                model="deep", messages=[{"role": "user", "content": PROMPT}]
            )
            assert raw.headers["x-ramify-tree"] == (await named.logged())[0].tree_id
            assert "deep" in [model.id async for model in client.models.list()]
