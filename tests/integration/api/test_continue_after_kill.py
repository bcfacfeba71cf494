"""kill -9 of a real server in the middle of a search: it leaves no engine, and the search goes on after the restart."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree
from ramify.treelog import TreeLog
from server_process import ServerProcess, is_engine, shared_memory, still_running

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]
TOKENS = 3000
ASKED: dict[str, Any] = {
    "prompt": "2 3 5 6 10 12 to 77",
    "search": {
        "algorithm": "mcts",
        "schedule": "waves",
        "parallel": 4,
        "early_stop": "off",
        "budget": {"tokens": TOKENS},
    },
    "seed": 5,
    "include_tree": True,
}


async def killed_at_the_first_commit(server: ServerProcess) -> str:
    """Start the search, kill the server once a checkpoint of it is on disk, and return its tree's id."""
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=300) as http,
        await TreeLog.open(server.log_url, read_only=True) as log,
        http.stream("POST", "/v1/search", json={**ASKED, "stream": True}) as answer,
        asyncio.timeout(300),
    ):
        tree_id = answer.headers["x-ramify-tree"]
        before = await log.high_water()
        while await log.checkpoint_owner(tree_id) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await log.high_water() == before, "the search has ended already"
        family = server.engine_processes()
        assert any(map(is_engine, family)), "there is something to leave"
        memory = shared_memory(family)
        left = server.kill()
    assert not await asyncio.to_thread(still_running, left, 5.0)
    assert not [path for path in memory if path.exists()]
    return tree_id


async def generated(http: httpx.AsyncClient) -> int:
    """Tokens that searches have had generated since the server started."""
    text = (await http.get("/metrics")).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return int(float(figures["ramify_generated_tokens_total"]))


def grown(tree: Tree) -> list[tuple[Any, ...]]:
    return [
        (node.parent, node.tokens, node.multiplicity, node.visits, node.simulation) for node in tree.nodes
    ]


async def test_a_killed_server_leaves_no_engine_and_its_search_goes_on_where_its_last_commit_was(
    server: ServerProcess,
) -> None:
    first = await killed_at_the_first_commit(server)
    await asyncio.to_thread(server.restart)
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
        state = (await http.get(f"/v1/search/{first}")).json()
        assert (state["status"], state["stop_reason"]) == ("interrupted", "crash")
        part = tree_from_dict((await http.get(f"/v1/trees/{first}")).json()["tree"])
        spent = part.usage.completion_tokens
        assert 0 < spent == state["usage"]["completion_tokens"] < TOKENS
        answer = await http.post(f"/v1/search/{first}/continue", json={"include_tree": True})
        assert answer.status_code == 200, answer.text
        tree = tree_from_dict(answer.json()["tree_document"])
        # Nothing twice: the restarted engine wrote only what was left.
        assert await generated(http) == tree.usage.completion_tokens - spent
        assert [node.tokens for node in tree.nodes[: len(part.nodes)]] == [n.tokens for n in part.nodes]
        # Exactly where it was: as if it had never been killed.
        whole = tree_from_dict((await http.post("/v1/search", json=ASKED)).json()["tree_document"])
        assert grown(tree) == grown(whole)
        # Both parts are in the log, and nothing else of them.
        listed = (await http.get("/v1/trees")).json()["data"]
        assert [(row["id"], row["status"], row["continues"]) for row in listed[:3]] == [
            (whole.id, "complete", None),
            (tree.id, "complete", first),
            (first, "interrupted", None),
        ]
