from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramify.search.codec import tree_from_dict

from .world import FOUR_ANSWERS, PROMPT, SERVING, FakeEngines, World, a_world, events, hold, release, until

pytestmark = pytest.mark.anyio


async def test_a_bare_prompt_is_answered_by_a_search(world: World) -> None:
    response = await world.search()
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["status"] == "complete"
    assert reply["stop_reason"] == "budget.simulations"
    assert reply["answer"]["text"].count("\n") == 3
    assert reply["model"] == "letters"
    assert reply["release"] == "fake"
    assert reply["usage"]["simulations"] == 64
    assert (
        reply["usage"]["total_tokens"]
        == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    )
    assert reply["tree"] == {"id": "tree_" + reply["id"][5:], "url": "/trees/tree_" + reply["id"][5:]}
    assert "tree_document" not in reply


async def test_the_answer_is_sent_after_its_tree_was_committed(world: World) -> None:
    reply = (await world.search()).json()
    (row,) = await world.logged()
    assert row.tree_id == reply["tree"]["id"]
    assert row.status == "complete"


async def test_the_value_model_chooses_the_answer(world: World) -> None:
    world.engines.policy.rule = FOUR_ANSWERS
    reply = (await world.search(n=4, search={"algorithm": "best_of_n"})).json()
    assert reply["answer"]["final"] == "a\na"
    assert reply["candidates"][0]["final"] == "a\na"
    assert len(reply["candidates"]) == 4
    assert len({c["final"] for c in reply["candidates"]}) == 4


async def test_n_is_an_upper_bound_of_distinct_answers(world: World) -> None:
    world.engines.policy.rule = FOUR_ANSWERS
    reply = (await world.search(n=60)).json()
    assert reply["stop_reason"] == "exhausted"
    assert len(reply["candidates"]) == 4


async def test_the_same_seed_and_waves_give_the_same_tree(world: World) -> None:
    ask = {"seed": 7, "search": {"schedule": "waves"}, "include_tree": True}
    first, second = [(await world.search(**ask)).json() for _ in range(2)]
    first, second = (tree_from_dict(reply["tree_document"]) for reply in (first, second))
    assert first.id != second.id
    assert first.nodes == second.nodes


async def test_parameters_reach_the_tree(world: World) -> None:
    reply = await world.search(
        search={"algorithm": "best_of_n", "answer": "majority", "budget": {"simulations": 5, "tokens": 99}},
        sampling={"temperature": 0.5, "max_tokens": 12, "stop": ["\n\n"]},
        seed=3,
        train=False,
        include_tree=True,
    )
    tree = tree_from_dict(reply.json()["tree_document"])
    assert (tree.params.algorithm, tree.params.answer) == ("best_of_n", "majority")
    assert (tree.params.budget.simulations, tree.params.budget.tokens) == (5, 99)
    assert (tree.sampling.temperature, tree.sampling.max_tokens, tree.sampling.stop) == (0.5, 12, ("\n\n",))
    assert (tree.seed, tree.train) == (3, False)
    assert reply.json()["usage"]["completion_tokens"] <= 99


async def test_a_task_grades_and_its_outcome_is_sent(world: World) -> None:
    world.engines.policy.rule = FOUR_ANSWERS
    reply = await world.search(
        task={"name": "exact", "problem": {"answer": "a"}},
        search={"grader": "verifier", "budget": {"simulations": 20}},
    )
    assert reply.status_code == 200, reply.text
    answer = reply.json()["answer"]
    assert (answer["outcome"], answer["outcome_source"]) == (1.0, "verifier")


async def test_a_countdown_prompt_states_its_problem_and_gets_its_own_form(world: World) -> None:
    world.engines.policy.prompt = world.engines.scorer.prompt = "3 5 7 8 to 24\n"
    reply = await world.search(prompt="3 5 7 8 to 24", task={"name": "countdown"}, include_tree=True)
    assert reply.status_code == 200, reply.text
    tree = tree_from_dict(reply.json()["tree_document"])
    assert tree.prompt == "3 5 7 8 to 24\n"
    assert tree.problem == {"numbers": [3, 5, 7, 8], "target": 24}


async def test_messages_go_through_the_chat_template(world: World) -> None:
    body = {"messages": [{"role": "user", "content": "?"}, {"role": "user", "content": "\n"}]}
    response = await world.http.post("/v1/search", json=body)
    assert response.status_code == 200, response.text


async def test_a_finished_search_can_be_asked_for_again(world: World) -> None:
    world.engines.policy.rule = FOUR_ANSWERS
    reply = (await world.search(n=4)).json()
    again = await world.http.get(f"/v1/search/{reply['id']}")
    assert again.json()["answer"] == reply["answer"]
    assert again.json()["candidates"][:4] == reply["candidates"]
    assert len(again.json()["candidates"]) <= 64
    cancelled = await world.http.post(f"/v1/search/{reply['id']}/cancel")
    assert cancelled.json()["status"] == "complete"


async def test_values_are_the_scorers(world: World) -> None:
    body = {"prompt": "?\n", "continuations": ["aa", "ab", "", [97]]}
    reply = (await world.http.post("/v1/value", json=body)).json()
    assert reply["values"] == [1.0, 0.5, 0.0, 1.0]
    assert reply["release"] == "fake"
    assert reply["usage"] == {"prompt_tokens": 2, "scored_sequences": 4, "total_tokens": 13}


async def test_two_searches_at_once_keep_their_parameters_apart(world: World) -> None:
    import asyncio

    budgets = list(range(3, 23))
    replies = await asyncio.gather(*(world.search(search={"budget": {"simulations": n}}) for n in budgets))
    assert [r.json()["usage"]["simulations"] for r in replies] == budgets


async def test_a_stream_shows_the_tree_as_it_grows_where_asked(world: World) -> None:
    world.engines.policy.rule = FOUR_ANSWERS
    ask = {"stream": True, "search": {"algorithm": "best_of_n", "budget": {"simulations": 400}}}
    hold(world.engines)
    asked = asyncio.create_task(world.search(**ask, stream_options={"nodes": True}))
    await until(lambda: world.engines.policy.running)
    release(world.engines)
    told = events((await asked).text)
    nodes = [node for name, data in told if name == "search.progress" for node in data["new_nodes"]]
    assert nodes[0]["id"] == 0
    assert {"parent", "text", "value", "visits", "mean", "terminal", "simulation"} <= nodes[0].keys()
    plain = events((await world.search(**ask)).text)
    assert all(data["new_nodes"] is None for name, data in plain if name == "search.progress")


async def test_stream_options_mean_nothing_without_a_stream(world: World) -> None:
    refused = await world.search(stream_options={"nodes": True})
    assert refused.status_code == 400
    assert "stream_options" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("search", "grader"),
    [
        ({}, "confidence"),
        ({"algorithm": "beam"}, "confidence"),
        ({"algorithm": "best_of_n"}, "confidence"),
        ({"algorithm": "self_consistency"}, "confidence"),
        ({"grader": "verifier"}, "verifier"),
        ({"algorithm": "gumbel", "grader": "verifier"}, "verifier"),
        ({"grader": "model"}, None),
        ({"grader": "verifier", "abandon": True}, None),
    ],
)
async def test_without_a_value_model_the_policys_confidence_or_the_verifier_judges(
    tmp_path: Path, search: dict[str, Any], grader: str | None
) -> None:
    engines = FakeEngines(serving=replace(SERVING, value=None))
    task = {"name": "exact", "problem": {"answer": "a"}}
    engines.scorer = None  # type: ignore[assignment]
    async with a_world(tmp_path, engines) as world:
        answer = await world.search(search=search, task=task, include_tree=True)
        if grader is None:
            assert answer.status_code == 400
            assert "there is none" in answer.json()["error"]["message"]
        else:
            params = answer.json()["tree_document"]["params"]
            assert params["grader"] == grader
            tree = "algorithm" not in search and grader == "verifier"
            assert params["algorithm"] == search.get("algorithm", "mcts" if tree else "best_of_n")
        judged = await world.http.post("/v1/value", json={"prompt": PROMPT, "continuations": ["a"]})
        assert judged.status_code == 400
        assert "--value" in judged.json()["error"]["message"]


async def test_28_parameters_of_requests_at_once_do_not_mix(world: World) -> None:
    async def asked(i: int) -> None:
        sampling = {"temperature": 0.1 * (i + 1), "max_tokens": 6 + i % 2}
        reply = (await world.search(sampling=sampling, seed=i, n=i + 1, include_tree=True)).json()
        tree = tree_from_dict(reply["tree_document"])
        assert (tree.sampling.temperature, tree.sampling.max_tokens) == tuple(sampling.values())
        assert tree.seed == i
        assert len(reply["candidates"]) <= i + 1

    await asyncio.gather(*(asked(i) for i in range(8)))
    assert {sampling.temperature for _, sampling, _ in world.engines.policy.requests} == {
        0.1 * (i + 1) for i in range(8)
    }
