"""Budgets of searches, and their worth at temperature 0, as a client of the routes sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes import FakePolicy, letters

from .openai_asks import BOTH, ask
from .world import FOUR_ANSWERS, PROMPT, FakeEngines, World, a_world

pytestmark = pytest.mark.anyio


@pytest.fixture
def deep() -> FakeEngines:
    """Answers of forty lines: as deep as no default was."""
    return FakeEngines(FakePolicy(letters({"a": 0.5, "b": 0.5}, 40)))


async def test_a_token_budget_is_spent_and_not_cut_to_64_simulations(world: World) -> None:
    reply = (await world.search(search={"budget": {"tokens": 2000}})).json()
    assert reply["stop_reason"] == "budget.tokens"
    assert 1900 < reply["usage"]["completion_tokens"] <= 2000
    assert reply["usage"]["simulations"] > 64


@BOTH
async def test_a_token_budget_is_spent_on_openais_routes_too(world: World, route: str) -> None:
    reply = (await ask(world, route, search={"budget": {"tokens": 2000}})).json()
    assert 1900 < reply["usage"]["completion_tokens"] <= 2000


@pytest.mark.parametrize(
    ("budget", "stop_reason", "simulations"),
    [
        ({}, "budget.simulations", 64),
        ({"nodes": 300}, "budget.nodes", 10_000),
        ({"seconds": 0.05}, "budget.seconds", 10_000),
        ({"tokens": 900, "simulations": 3}, "budget.simulations", 3),
    ],
)
async def test_only_the_limits_that_are_named_count_and_the_servers_own(
    world: World, budget: dict[str, Any], stop_reason: str, simulations: int
) -> None:
    reply = (await world.search(search={"budget": budget}, include_tree=True)).json()
    assert reply["stop_reason"] == stop_reason
    assert reply["tree_document"]["params"]["budget"]["simulations"] == simulations


async def test_simulations_that_nobody_named_are_never_more_than_the_server_takes(tmp_path: Path) -> None:
    async with a_world(tmp_path, limits={"budget_simulations": 7}) as world:
        for search in ({}, {"budget": {"tokens": 500}}):
            assert (await world.search(search=search)).json()["usage"]["simulations"] == 7


async def test_a_search_at_temperature_0_is_refused_by_name_and_costs_nothing(world: World) -> None:
    reply = await world.search(sampling={"temperature": 0})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "sampling.temperature"
    assert world.engines.policy.requests == []


async def test_one_greedy_answer_is_one_draw(world: World) -> None:
    search = {"algorithm": "best_of_n", "budget": {"simulations": 1}}
    reply = (await world.search(search=search, sampling={"temperature": 0})).json()
    assert [(text, n, sampling.temperature) for text, sampling, n in world.engines.policy.requests] == [
        (PROMPT, 1, 0)
    ]
    assert reply["usage"]["completion_tokens"] == 7


@BOTH
async def test_openais_clients_send_0_by_habit_and_their_search_draws_at_the_default_temperature(
    world: World, route: str
) -> None:
    reply = (await ask(world, route, temperature=0, search={"budget": {"simulations": 20}})).json()
    assert reply["ramify"]["temperature"] == 1.0
    assert {sampling.temperature for _, sampling, _ in world.engines.policy.requests} == {1.0}
    (row,) = await world.logged()
    assert row.n_nodes > 20


@BOTH
async def test_a_search_that_is_greedy_in_itself_stays_so_on_openais_routes(world: World, route: str) -> None:
    search = {"algorithm": "best_of_n", "budget": {"simulations": 1}}
    reply = (await ask(world, route, temperature=0, search=search)).json()
    assert reply["ramify"]["temperature"] == 0
    assert [sampling.temperature for _, sampling, _ in world.engines.policy.requests] == [0]


async def test_a_search_told_what_is_right_ends_with_the_first_right_answer(world: World) -> None:
    world.engines.policy.rule = FOUR_ANSWERS
    asked: dict[str, Any] = {
        "task": {"name": "exact", "problem": {"answer": "a"}},
        "search": {
            "grader": "verifier",
            "budget": {"simulations": 60},
            "algorithm": "best_of_n",
            "parallel": 1,
        },
    }
    first = (await world.search(**asked)).json()
    assert (first["stop_reason"], first["answer"]["outcome"]) == ("early", 1.0)
    asked["search"]["early_stop"] = "off"
    assert (await world.search(**asked)).json()["stop_reason"] in ("exhausted", "budget.simulations")


async def test_no_answer_is_cut_by_a_depth_that_nobody_asked_for(tmp_path: Path, deep: FakeEngines) -> None:
    async with a_world(tmp_path, deep) as world:
        reply = (
            await world.search(sampling={"max_tokens": 100}, search={"budget": {"simulations": 5}})
        ).json()
        assert reply["usage"]["truncated_answers"] == 0
        assert reply["answer"]["text"].count("\n") == 40


@pytest.mark.parametrize(
    ("by", "asked"),
    [("max_depth", {"search": {"max_depth": 3}}), ("max_tokens", {"sampling": {"max_tokens": 20}})],
)
async def test_a_cut_answer_is_said_in_the_reply_and_counted(
    tmp_path: Path, deep: FakeEngines, by: str, asked: dict[str, Any]
) -> None:
    body = {"sampling": {"max_tokens": 100}, **asked}
    body["search"] = {**body.get("search", {}), "width": 1, "budget": {"simulations": 5}}
    async with a_world(tmp_path, deep) as world:
        usage = (await world.search(**body)).json()["usage"]
        metrics = (await world.http.get("/metrics")).text
    assert usage["truncated_answers"] >= 5
    assert f'ramify_truncated_answers_total{{by="{by}"}} {float(usage["truncated_answers"])}' in metrics
