from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from .world import PROMPT, World, hold, release, until

pytestmark = pytest.mark.anyio


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return found


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"prompt": ""}, "prompt"),
        ({"prompt": PROMPT, "messages": [{"role": "user", "content": "?"}]}, None),
        ({"prompt": PROMPT, "serch": {}}, "serch"),
        ({"prompt": PROMPT, "search": {"algoritm": "mcts"}}, "search.algoritm"),
        ({"prompt": PROMPT, "search": {"algorithm": "astar"}}, "search.algorithm"),
        ({"prompt": PROMPT, "search": {"width": 0}}, "search.width"),
        ({"prompt": PROMPT, "search": {"width": "4"}}, "search.width"),
        ({"prompt": PROMPT, "search": {"budget": {"tokens": -1}}}, "search.budget.tokens"),
        ({"prompt": PROMPT, "search": {"budget": {"tokens": 50_000_000}}}, "search.budget.tokens"),
        ({"prompt": PROMPT, "search": {"budget": {"seconds": 5000}}}, "search.budget.seconds"),
        ({"prompt": PROMPT, "search": {"action": {"stop": ["x"] * 9}}}, "search.action.stop"),
        ({"prompt": PROMPT, "search": {"action": {"stop": ["x" * 200]}}}, "search.action.stop.0"),
        ({"prompt": PROMPT, "sampling": {"temperature": 3}}, "sampling.temperature"),
        ({"prompt": PROMPT, "sampling": {"max_tokens": 511}}, "sampling.max_tokens"),
        ({"prompt": PROMPT, "n": 1000}, "n"),
        ({"prompt": PROMPT, "seed": -1}, "seed"),
        ({"prompt": PROMPT, "deadline": 1e9}, "deadline"),
        ({"prompt": PROMPT, "deadline": 301}, "deadline"),
        ({"prompt": PROMPT * 300}, "prompt"),
        ({"prompt": PROMPT, "task": {"name": "chess"}}, "task.name"),
        ({"prompt": PROMPT, "task": {"name": "exact", "problem": {"answr": "a"}}}, "task.problem.answr"),
        ({"prompt": PROMPT, "task": {"name": "exact"}}, "task.problem"),
        (
            {"prompt": PROMPT, "task": {"name": "math", "problem": {"answer": "43 = 42"}}},
            "task.problem.answer",
        ),
        ({"prompt": PROMPT, "search": {"grader": "verifier"}}, "search.grader"),
    ],
)
async def test_what_is_wrong_is_refused_with_400_and_its_path(
    world: World, body: Any, param: str | None
) -> None:
    found = error(await world.http.post("/v1/search", json=body), 400)
    assert found["param"] == param
    assert found["type"] == "invalid_request_error"
    assert not await world.logged()


@pytest.mark.parametrize(
    ("search", "param"),
    [
        ({"algorithm": "best_of_n", "c_init": 1.0}, "search.c_init"),
        ({"algorithm": "beam", "select": "puct"}, "search.select"),
        ({"select": "thompson", "c_base": 5.0}, "search.c_base"),
        ({"expand": "path", "leaf": "rollout"}, "search.leaf"),
        ({"expand": "step", "action": {"kind": "token", "stop": ["x"]}}, "search.action.stop"),
    ],
)
async def test_26_a_field_without_effect_is_refused_by_name_never_dropped(
    world: World, search: Any, param: str
) -> None:
    found = error(await world.search(search=search), 400)
    assert found["param"] == param
    assert "no effect" in found["message"]


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfffb"])
async def test_half_a_surrogate_pair_is_refused(world: World, text: str) -> None:
    headers = {"content-type": "application/json"}
    body = f'{{"prompt": "?{text}"}}'
    found = error(await world.http.post("/v1/search", content=body, headers=headers), 400)
    assert found["param"] == "prompt"


async def test_what_a_database_cannot_hold_is_refused_or_replaced(world: World) -> None:
    error(await world.http.get("/v1/trees?text=%00"), 400)
    error(await world.http.put("/v1/consumers/c", json={"owner": "a\x00", "lease_seconds": 1}), 400)
    reply = (await world.search(prompt="?\n\x00")).json()
    path = f"/v1/trees/{reply['id']}/feedback"
    verdict = await world.http.post(path, json={"outcome": 1, "answer": "\x00", "comment": "\x00"})
    assert verdict.status_code == 200


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_numbers_that_are_not_finite_are_refused(world: World, number: str) -> None:
    body = f'{{"prompt": "?", "sampling": {{"temperature": {number}}}}}'
    headers = {"content-type": "application/json"}
    found = error(await world.http.post("/v1/search", content=body, headers=headers), 400)
    assert found["param"] == "sampling.temperature"


@pytest.mark.parametrize("body", ["{", "[]", "null", '"x"', "[" * 50_000, '{"seed": ' + "9" * 5000 + "}"])
async def test_what_is_no_json_object_is_refused_with_400(world: World, body: str) -> None:
    headers = {"content-type": "application/json"}
    error(await world.http.post("/v1/search", content=body, headers=headers), 400)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/completions", "/v1/trees/tree_0/feedback"])
async def test_only_json_is_read_whatever_the_body_holds(world: World, path: str, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    found = error(await world.http.post(path, content='{"prompt": "?"}', headers=headers), 415)
    assert "application/json" in found["message"]
    assert found["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": PROMPT, "search": {"algorithm": "x" * 500_000}},
        {"prompt": PROMPT, "x" * 500_000: 1},
        {"prompt": PROMPT, "task": {"name": "exact", "problem": {"y" * 400_000: 1}}},
        {"prompt": PROMPT, "search": {f"field{i}": 1 for i in range(20_000)}},
        {"prompt": PROMPT, "model": "m" * 200},
    ],
)
async def test_30_an_error_never_echoes_much_of_its_input(world: World, body: Any) -> None:
    response = await world.http.post("/v1/search", json=body)
    assert response.status_code in (400, 404)
    assert len(response.content) < 3000


async def test_30_at_most_ten_errors_are_told(world: World) -> None:
    found = error(await world.search(search={f"field{i}": 1 for i in range(15)}), 400)
    assert found["message"].count("unknown field") == 10
    assert "and 5 more" in found["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_with_413_before_it_is_parsed(
    world: World, chunked: bool
) -> None:
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 100_000
            yield b"[" * 100_000

    content: Any = chunks() if chunked else b"[" * 2_000_000
    headers = {"content-type": "application/json"}
    refused = error(await world.http.post("/v1/search", content=content, headers=headers), 413)
    assert refused["code"] == "body_too_large"
    assert sent < 2_000_000


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "a", "continuations": []}, "continuations"),
        ({"prompt": "a", "continuations": [3]}, "continuations.0"),
        ({"prompt": "a", "continuations": ["b"] * 257}, "continuations"),
        ({"prompt": "a" * 200_000, "continuations": ["b"]}, "prompt"),
        ({"prompt": "a" * 500, "continuations": ["b", "c" * 20]}, "continuations.1"),
        ({"prompt": "", "continuations": ["b", ""]}, "continuations.1"),
        ({"prompt": "a", "continuations": ["b", [97, 256]]}, "continuations.1"),
        ({"prompt": [-1], "continuations": ["b"]}, "prompt"),
        ({"prompt": [2**70], "continuations": ["b"]}, "prompt"),
        ({"prompt": [True], "continuations": ["b"]}, "prompt"),
    ],
)
async def test_no_value_request_reaches_an_engine_that_would_break_it(
    world: World, body: Any, param: str
) -> None:
    assert error(await world.http.post("/v1/value", json=body), 400)["param"] == param
    assert world.engines.scorer.scored == 0


async def test_unknown_routes_and_methods_have_the_same_shape(world: World) -> None:
    assert error(await world.http.get("/v1/nothing"), 404)["code"] == "unknown_route"
    assert error(await world.http.get("/v1/search"), 405)["code"] == "method_not_allowed"
    assert error(await world.http.get("/docs"), 404)["param"] is None


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS"])
async def test_a_method_that_is_not_allowed_is_answered_with_all_that_are(world: World, method: str) -> None:
    answer = await world.http.request(method, "/v1/trees/tree_0")
    assert "DELETE, GET" in error(answer, 405)["message"]
    assert answer.headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize(
    ("body", "instead"),
    [
        ({"search": {"kapa": 3}}, "search.kappa"),
        ({"serach": {}}, "search"),
        ({"temperature": 0.5}, "sampling.temperature"),
        ({"search": {"tokens": 100}}, "search.budget.tokens"),
        ({"stop": []}, "search.action.stop or sampling.stop"),
    ],
)
async def test_a_field_that_there_is_not_is_answered_with_the_one_that_was_meant(
    world: World, body: dict[str, Any], instead: str
) -> None:
    assert error(await world.search(**body), 400)["message"].endswith(f"did you mean {instead}?")


async def test_a_field_that_is_like_no_other_is_answered_without_a_guess(world: World) -> None:
    assert error(await world.search(zzz=1), 400)["message"] == "zzz: unknown field"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "completions",
            {"prompt": "a", "stop": ""},
            "stop: String should have at least 1 character (got '')",
        ),
        ("completions", {"prompt": ""}, "prompt: String should have at least 1 character (got '')"),
        ("completions", {"prompt": [""]}, "prompt.0: String should have at least 1 character (got '')"),
        ("responses", {"input": ""}, "input: String should have at least 1 character (got '')"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "tool_choice": "b"},
            "tool_choice: Input should be 'none', 'auto' or 'required' (got 'b')",
        ),
    ],
)
async def test_one_fault_in_a_field_of_several_types_is_told_once(
    world: World, path: str, body: dict[str, Any], message: str
) -> None:
    assert error(await world.http.post(f"/v1/{path}", json=body), 400)["message"] == message


async def test_what_should_be_an_object_is_said_to_be_none_with_what_came(world: World) -> None:
    assert (
        error(await world.search(search="mcts"), 400)["message"]
        == "search: must be a JSON object (got 'mcts')"
    )
    answer = await world.http.post(
        "/v1/search", content="{'prompt': 1}", headers={"Content-Type": "application/json"}
    )
    assert error(answer, 400)["param"] is None


async def test_an_unknown_model_is_404(world: World) -> None:
    assert error(await world.search(model="gpt"), 404)["code"] == "model_not_found"
    assert error(await world.http.get("/v1/models/gpt"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["srch_" + "0" * 32, "tree_" + "0" * 32, "nonsense", "srch_x"])
async def test_unknown_ids_are_404(world: World, name: str) -> None:
    error(await world.http.get(f"/v1/search/{name}"), 404)
    error(await world.http.post(f"/v1/search/{name}/cancel"), 404)
    error(await world.http.get(f"/v1/trees/{name}"), 404)
    error(await world.http.delete(f"/v1/trees/{name}"), 404)
    error(await world.http.post(f"/v1/trees/{name}/feedback", json={"outcome": 1}), 404)


async def test_a_mistake_of_ours_is_500_and_names_the_request_alone(world: World) -> None:
    async def broken(sequences: Any) -> Any:
        raise RuntimeError("secret path /home/somebody")

    world.engines.scorer.score = broken  # type: ignore[method-assign]
    response = await world.http.post("/v1/value", json={"prompt": "a", "continuations": ["b"]})
    found = error(response, 500)
    assert response.headers["x-request-id"] in found["message"]
    assert "secret" not in response.text


async def test_a_sane_request_id_is_taken_over_and_any_other_is_not(world: World) -> None:
    sane = await world.http.get("/livez", headers={"x-request-id": "my-id.1"})
    assert sane.headers["x-request-id"] == "my-id.1"
    for odd in ("a b", "x" * 200, "é", ""):
        answer = await world.http.get("/livez", headers=[(b"x-request-id", odd.encode())])
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_log_that_fails_means_no_answer(world: World) -> None:
    hold(world.engines)
    asked = asyncio.create_task(world.search())
    await until(lambda: world.engines.policy.running)
    await world.log.close()
    release(world.engines)
    found = error(await asked, 500)
    assert found["code"] == "search_failed"
    assert "ramify_log_failures_total 1.0" in world.context.metrics.text().decode()
