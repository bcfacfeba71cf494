from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ramify.api.app import routes
from ramify.api.scopes import ScopedRoute
from ramify.logs import log_to_stderr

from .world import World, a_world, hold, release, until

pytestmark = pytest.mark.anyio


async def test_31_readiness_follows_the_engines_progress(tmp_path: Path) -> None:
    probe = {"deadline_seconds": 0.05, "cache_seconds": 0.0}
    async with a_world(tmp_path, probe=probe) as world:
        assert (await world.http.get("/readyz")).status_code == 200
        world.engines.hung = True
        for path in ("/readyz", "/health"):
            answer = await world.http.get(path)
            assert answer.status_code == 503
            assert "made no step" in answer.json()["error"]["message"]
        assert (await world.http.get("/livez")).status_code == 200
        world.engines.hung = False
        assert (await world.http.get("/readyz")).status_code == 200


async def test_31_a_drain_is_seen_while_a_probe_hangs(world: World) -> None:
    world.engines.hung = True
    asked = asyncio.create_task(world.http.get("/readyz"))
    await until(lambda: world.engines.probes)
    world.context.searches.admission.close()
    assert "shutting down" in (await asked).json()["error"]["message"]


async def test_31_one_probe_serves_everyone_who_asks_meanwhile(world: World) -> None:
    answers = await asyncio.gather(*(world.http.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert world.engines.probes == 1


async def test_models_have_openais_shape(world: World) -> None:
    model = (await world.http.get("/v1/models")).json()["data"][0]
    assert (model["id"], model["object"], model["root"]) == ("letters", "model", "fake")
    assert (await world.http.get("/v1/models/letters")).json() == model


async def test_version_says_what_runs(world: World) -> None:
    import ramify

    found = (await world.http.get("/version")).json()
    assert found == {"version": ramify.__version__, "model": "letters", "release": "fake", "remote": False}


async def test_metrics_count_what_was_done(world: World) -> None:
    reply = (await world.search()).json()
    await world.search(search={"width": 0})
    text = (await world.http.get("/metrics")).text
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    ended = (("algorithm", "mcts"), ("status", "complete"), ("stop_reason", "budget.simulations"))
    assert samples["ramify_searches_total", ended] == 1
    assert samples["ramify_generated_tokens_total", ()] == reply["usage"]["completion_tokens"]
    assert samples["ramify_simulations_total", ()] == 64
    assert samples["ramify_searches_running", ()] == 0
    assert samples["ramify_log_queue_depth", ()] == 0
    assert samples["ramify_engine_requests_running", ()] == 0
    route = (("method", "POST"), ("route", "/v1/search"))
    assert samples["ramify_http_requests_total", (*route, ("status", "200"))] == 1
    assert samples["ramify_http_requests_total", (*route, ("status", "400"))] == 1


async def test_metrics_of_unknown_paths_share_one_label(world: World) -> None:
    for i in range(5):
        await world.http.get(f"/nothing/{i}")
    text = (await world.http.get("/metrics")).text
    assert 'ramify_http_requests_total{method="any",route="unmatched",status="404"} 5.0' in text


async def test_a_full_server_answers_503_with_a_computed_retry_after(tmp_path: Path) -> None:
    async with a_world(tmp_path, admission={"searches": 1, "queue": 0}) as world:
        first = asyncio.create_task(world.search(search={"budget": {"simulations": 9000, "tokens": 150_000}}))
        await until(lambda: world.engines.policy.generated > 100)
        hold(world.engines)
        second = await world.search()
        assert second.status_code == 503
        assert second.json()["error"]["code"] == "server_full"
        assert 1 <= int(second.headers["retry-after"]) <= 120
        text = (await world.http.get("/metrics")).text
        assert 'ramify_admission_rejections_total{reason="full"} 1.0' in text
        (running,) = world.context.searches.running.values()
        running.stop("cancelled", "client")
        await first


async def test_a_key_over_its_share_is_429(tmp_path: Path) -> None:
    from .world import KEYS

    settings: dict[str, Any] = {"auth": {"keys": KEYS}, "admission": {"key_tokens_in_flight": 1000}}
    async with a_world(tmp_path, **settings) as world:
        hold(world.engines)
        budget = {"budget": {"simulations": 100, "tokens": 900}}
        first = asyncio.create_task(world.search(headers=world.as_key("alice"), search=budget))
        await until(lambda: world.engines.policy.running)
        second = await world.search(headers=world.as_key("alice"), search=budget)
        assert second.status_code == 429
        assert second.json()["error"] == {
            "message": second.json()["error"]["message"],
            "type": "rate_limit_error",
            "param": None,
            "code": "key_over_share",
        }
        assert int(second.headers["retry-after"]) >= 1
        third = asyncio.create_task(world.search(headers=world.as_key("bob"), search=budget))
        release(world.engines)
        assert {(await task).status_code for task in (first, third)} == {200}


async def test_the_openapi_document_describes_every_route_and_its_errors(keyed: World) -> None:
    document = (await keyed.http.get("/openapi.json")).json()
    for route in routes().routes:
        assert isinstance(route, ScopedRoute)
        if not route.include_in_schema:
            continue
        for method in route.methods:
            operation = document["paths"][route.path_format][method.lower()]
            assert operation["summary"]
            assert operation["description"]
            assert ("security" in operation) == ("open" not in route.scopes)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert response["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")
    responses = document["paths"]["/v1/search"]["post"]["responses"]
    assert set(responses) == {
        "200",
        "400",
        "401",
        "403",
        "404",
        "409",
        "413",
        "422",
        "429",
        "500",
        "503",
        "504",
    }
    assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    assert references(document) <= {
        f"#/components/schemas/{name}" for name in document["components"]["schemas"]
    }


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(inner) for inner in value.values()))
    return set().union(*(references(inner) for inner in value)) if isinstance(value, list) else set()


async def test_the_documented_example_requests_are_taken(world: World) -> None:
    document = (await world.http.get("/openapi.json")).json()
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]["application/json"]
    assert content["schema"]["$ref"].endswith("/SearchRequest")
    world.engines.policy.prompt = world.engines.scorer.prompt = "3 5 7 8 to 24"
    for example in content["examples"].values():
        response = await world.http.post("/v1/search", json=example["value"])
        assert response.status_code == 200, response.text


async def test_a_path_with_line_ends_and_escapes_is_one_line_of_the_log(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("ramify")
    before = logger.handlers, logger.propagate, logger.level
    log_to_stderr("ramify", "info")
    try:
        await world.http.get("/x%0A2026-01-01T00:00:00Z%20INFO%20forged%1b%5b31m%E2%80%A8%ED%A0%BD")
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
    (line,) = capsys.readouterr().err.splitlines()
    assert r"GET /x\n2026-01-01T00:00:00Z INFO forged\x1b[31m\u2028" in line
