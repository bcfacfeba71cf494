"""The server as people run it: `ramify serve` on vLLM, over a socket."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from ramify.rewards import countdown
from ramify.search.codec import tree_from_dict
from server_process import ServerProcess, still_running

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]
LARGE = {"algorithm": "mcts", "parallel": 32, "budget": {"simulations": 10_000, "tokens": 200_000}}


async def engine_work(http: httpx.AsyncClient) -> float:
    """Sequences in the policy's engine and its queue."""
    text = (await http.get("/metrics")).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(figures["ramify_engine_policy_running"]) + float(figures["ramify_engine_policy_waiting"])


async def until_busy(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while not await engine_work(http):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def freed_within(http: httpx.AsyncClient, began: float) -> float:
    """Seconds from `began` until the engines have nothing to do."""
    async with asyncio.timeout(10):
        while await engine_work(http):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def newest(http: httpx.AsyncClient) -> dict[str, object]:
    row: dict[str, object] = (await http.get("/v1/trees?limit=1")).json()["data"][0]
    return row


async def ended(http: httpx.AsyncClient, before: object) -> dict[str, object]:
    """The newest tree of the log, once it is another than `before`."""
    async with asyncio.timeout(10):
        while (row := await newest(http))["id"] == before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return row


async def test_the_curl_of_the_banner_is_answered(server: ServerProcess) -> None:
    command = next(line for line in server.banner.splitlines() if "curl" in line).split("  ask  ")[1]
    done = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE)
    written, _ = await done.communicate()
    reply = json.loads(written)
    assert reply["status"] == "complete", reply
    assert reply["answer"] is not None or reply["usage"]["completion_tokens"] > 0


async def test_a_search_on_vllm_is_answered_and_logged(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/search", json={"prompt": "3 5 7 8 to 24", "include_tree": True, "seed": 1})
    assert answer.status_code == 200, answer.text
    tree = tree_from_dict(answer.json()["tree_document"])
    assert tree.task == "countdown"
    assert tree.problem == {"numbers": [3, 5, 7, 8], "target": 24}
    assert all(node.logprobs for node in tree.nodes[1:])
    assert (await newest(http))["id"] == tree.id


async def test_values_on_vllm_lie_between_0_and_1(http: httpx.AsyncClient) -> None:
    body = {"prompt": "3 5 7 8 to 24\n", "continuations": ["8 * 3 = 24\n", "", "5 + 7 = 12\n"]}
    reply = (await http.post("/v1/value", json=body)).json()
    assert len(reply["values"]) == 3
    assert all(0 <= value <= 1 for value in reply["values"])
    too_large = await http.post("/v1/value", json={"prompt": [10_000_000], "continuations": [[1]]})
    assert too_large.status_code == 400, too_large.text


async def test_events_arrive_on_vllm(http: httpx.AsyncClient) -> None:
    async with http.stream(
        "POST", "/v1/search", json={"prompt": "3 5 7 8 to 24", "stream": True}
    ) as response:
        names = [line[7:] async for line in response.aiter_lines() if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("search.started", "search.completed")


async def test_a_branch_on_vllm_goes_on_from_the_same_tokens_and_is_judged_whole(
    http: httpx.AsyncClient,
) -> None:
    search = {"grader": "verifier", "budget": {"simulations": 8}}
    body = {"prompt": "3 5 7 8 to 24", "search": search, "include_tree": True, "seed": 2}
    parent = tree_from_dict((await http.post("/v1/search", json=body)).json()["tree_document"])
    node = next(n for n in parent.nodes if n.depth == 1 and n.terminal is None)
    del body["prompt"]
    answer = await http.post(f"/v1/trees/{parent.id}/branch", json={**body, "node": node.id})
    assert answer.status_code == 200, answer.text
    tree = tree_from_dict(answer.json()["tree_document"])
    assert tree.prompt_tokens == parent.sequence(node)
    for leaf in tree.complete():
        assert tree.text(leaf).startswith(node.text)
        assert leaf.outcome == countdown.grade(tree.problem or {}, tree.text(leaf)).outcome
    assert tree.complete()


async def test_readiness_and_models(http: httpx.AsyncClient) -> None:
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    served, *names = (await http.get("/v1/models")).json()["data"]
    assert served["id"] == "countdown-tiny"
    assert {name["parent"] for name in names} == {"countdown-tiny"}


@pytest.mark.parametrize("stream", [False, True])
async def test_27_a_client_that_leaves_frees_vllm_within_a_second(
    http: httpx.AsyncClient, stream: bool
) -> None:
    await http.post("/v1/search", json={"prompt": "3 5 7 8 to 24", "search": {"budget": {"simulations": 1}}})
    before = (await newest(http))["id"]
    await freed_within(http, time.monotonic())  # the engine is busy with nothing but what follows
    body = {"prompt": "3 5 7 8 9 to 24", "search": LARGE, "stream": stream}
    async with httpx.AsyncClient(base_url=http.base_url, timeout=60) as leaving:
        asked = asyncio.create_task(leaving.post("/v1/search", json=body))
        await until_busy(http)
        began = time.monotonic()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert await freed_within(http, began) < 1.0
    row = await ended(http, before)
    assert row["status"] == "cancelled"
    found = (await http.get(f"/v1/search/{row['id']}")).json()
    assert found["stop_reason"] == "disconnect"


async def test_a_cancelled_search_frees_vllm_within_a_second(http: httpx.AsyncClient) -> None:
    body = {"prompt": "3 5 7 8 9 to 24", "search": LARGE, "stream": True}
    async with http.stream("POST", "/v1/search", json=body) as response:
        lines = response.aiter_lines()
        data = [line async for line in until_started(lines)][-1]
        found = json.loads(data.removeprefix("data: "))["id"]
        await until_busy(http)
        began = time.monotonic()
        reply = (await http.post(f"/v1/search/{found}/cancel")).json()
        assert await freed_within(http, began) < 1.0
        rest = "\n".join([line async for line in lines])
    assert reply["status"] == "cancelled"
    assert "event: search.completed" in rest
    assert (await newest(http))["status"] == "cancelled"


async def until_started(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: "):
            yield line
            return


async def test_a_deadline_frees_vllm_within_a_second(http: httpx.AsyncClient) -> None:
    began = time.monotonic()
    answer = await http.post(
        "/v1/search", json={"prompt": "3 5 7 8 9 to 24", "search": LARGE, "deadline": 1.0}
    )
    assert answer.status_code in (200, 504), answer.text
    assert await freed_within(http, began + 1.0) < 1.0
    assert (await newest(http))["status"] == "deadline"


async def test_a_second_server_is_refused_before_its_engines_start(server: ServerProcess) -> None:
    port = server.url.rpartition(":")[2]
    for flags, said in (
        (["--port", port], port),
        (["--port", "0", "--log", f"{server.folder}/trees.db", *server.models], "is writing"),
    ):
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ramify", "serve", *flags),
            cwd=server.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _, errors = await done.communicate()
        assert done.returncode not in (0, None)
        assert said in errors.decode(), errors.decode()
        assert "engines starting" not in errors.decode()


async def test_z_sigterm_drains_logs_answers_and_leaves_no_process(
    server: ServerProcess, http: httpx.AsyncClient
) -> None:
    left = server.engine_processes()
    body = {"prompt": "3 5 7 8 9 to 24", "search": LARGE}
    asked = asyncio.create_task(http.post("/v1/search", json=body))
    await until_busy(http)
    server.process.terminate()
    async with asyncio.timeout(60):  # on a busy machine the first answer waits for a probe
        while (await http.get("/readyz")).status_code != 503:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await http.post("/v1/search", json=body)).status_code == 503
    answer = await asked
    assert answer.status_code in (200, 503)
    if answer.status_code == 200:
        assert answer.json()["status"] in ("drained", "complete")
    assert await asyncio.to_thread(server.process.wait, 60) == 0
    assert not await asyncio.to_thread(still_running, left, 5.0)
