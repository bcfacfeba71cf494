"""Right and wrong in the log: the verifier's word on every finished answer, and later words that go before it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ramify.search.codec import tree_from_dict
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict
from ramify.service.grading import grade_answer
from ramify.treelog import TreeLog
from treelog_trees import make_tree

from .world import World

pytestmark = pytest.mark.anyio
SMALL = {"schedule": "waves", "budget": {"simulations": 4}}


def exact(answer: str) -> dict[str, Any]:
    return {"name": "exact", "problem": {"answer": answer}}


async def rows(world: World, query: str = "") -> list[Any]:
    data: list[Any] = (await world.http.get(f"/v1/trees?{query}")).json()["data"]
    return data


async def test_an_ordinary_search_is_judged_into_a_field_of_its_own(world: World) -> None:
    first = (await world.search(search=SMALL, seed=3)).json()
    assert first["verdict"] is None, "no task, no verifier"
    wrong = (await world.search(task=exact("nothing like it"), search=SMALL, seed=3)).json()
    right = (await world.search(task=exact(wrong["answer"]["final"]), search=SMALL, seed=3)).json()
    assert (right["verdict"]["outcome"], right["verdict"]["source"]) == (1.0, "verifier")
    assert wrong["verdict"]["outcome"] == 0.0
    assert "nothing like it" in wrong["verdict"]["reason"]
    assert right["answer"]["outcome"] is None, "the search itself never saw it"
    tree = tree_from_dict((await world.http.get(f"/v1/trees/{right['tree']['id']}")).json()["tree"])
    assert tree.verdict is not None
    assert tree.verdict.outcome == 1.0
    assert {node.outcome for node in tree.nodes} == {None}
    assert [(row["id"], row["outcome_source"]) for row in await rows(world, "outcome=right")] == [
        (right["tree"]["id"], "verifier")
    ]
    assert [row["id"] for row in await rows(world, "outcome=wrong")] == [wrong["tree"]["id"]]
    assert [row["id"] for row in await rows(world, "outcome=none")] == [first["tree"]["id"]]
    assert (await world.log.verify()).ok


async def test_a_persons_verdict_changes_the_trees_head_and_the_filter(world: World) -> None:
    reply = (await world.search(task=exact("z"), search=SMALL, seed=3)).json()
    path = f"/v1/trees/{reply['tree']['id']}"
    chosen = reply["answer"]
    other = next(n for n in range(reply["usage"]["nodes"]) if n != chosen["node"])
    await world.http.post(f"{path}/feedback", json={"outcome": 1, "node": other})
    assert (await world.http.get(path)).json()["outcome"] == 0.0, "it was on another answer"
    for body, head in (
        ({"outcome": 1}, (1.0, "human")),
        ({"outcome": 0.25, "answer": chosen["text"], "source": "verifier"}, (0.25, "verifier")),
        ({"outcome": 1, "node": chosen["node"]}, (1.0, "human")),
    ):
        assert (await world.http.post(f"{path}/feedback", json=body)).status_code == 200
        found = (await world.http.get(path)).json()
        (row,) = await rows(world)
        assert (found["outcome"], found["outcome_source"]) == head
        assert (row["outcome"], row["outcome_source"]) == head
        assert len(await rows(world, "outcome=right")) == (head[0] == 1)
        assert len(await rows(world, "outcome=wrong")) == (head[0] < 1)
    assert found["tree"]["verdict"]["outcome"] == 0.0, "what was logged stays as it was"
    assert (await world.log.verify()).ok


class Verifier:
    """Grades as it is told; hangs if it is told nothing."""

    def __init__(self, said: Verdict | Exception | None) -> None:
        self._said = said

    async def final(self, text: str) -> str | None:
        return text

    async def grade(self, text: str) -> Verdict:
        if self._said is None:
            await asyncio.Event().wait()
        if isinstance(self._said, Exception):
            raise self._said
        assert self._said is not None
        return self._said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (GradingFailed("the worker died"), "the worker died"),
        (RuntimeError("a mistake of ours"), "RuntimeError"),
        (None, "no answer in time"),
    ],
    ids=["fails", "raises", "hangs"],
)
async def test_a_verifier_that_fails_leaves_the_outcome_empty_and_says_so(
    said: Exception | None, reason: str
) -> None:
    tree = make_tree(task="math", problem={"answer": "24"})
    await asyncio.wait_for(grade_answer(tree, Verifier(said), 0.05, asyncio.Event()), 5)
    assert tree.verdict is not None
    assert tree.verdict.outcome is None
    assert reason in tree.verdict.reason


async def test_what_the_search_has_graded_is_not_graded_again(world: World) -> None:
    search = {"grader": "verifier", "budget": {"simulations": 60}}
    reply = (await world.search(task=exact("a"), search=search, seed=1)).json()
    assert reply["verdict"]["outcome"] == reply["answer"]["outcome"]
    assert reply["verdict"]["reason"] == "graded during the search"


async def test_verify_finds_a_latest_verdict_that_is_not_the_last(world: World) -> None:
    log: TreeLog = world.log
    tree = make_tree()
    await log.append(tree)
    await log.add_feedback(tree.id, 1.0, node=3)
    assert (await log.verify()).ok
    assert log._writes is not None
    async with log._writes.begin() as conn:
        await conn.exec_driver_sql("UPDATE trees SET verdict_seq = NULL")
    assert [bad.reason for bad in (await log.verify()).bad] == ["its latest verdict is not the last one"]
