"""Duels, our side of them: a whole server around a fake model, and stand-ins that ask what the libraries ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.api.world import FOUR_ANSWERS, PROMPT, FakeEngines, a_world
from fakes import FakePolicy
from ramify.api.app import application
from ramify.rewards.verifier import Example
from ramify_client import AsyncClient
from research.duels.arms import Budget, Ramify, Sized
from research.duels.engine import Draft, Engine
from research.duels.its_hub import Models, sized
from research.duels.report import markdown
from research.duels.run import Duel, Row
from research.duels.treequest import TreeQuest

pytestmark = pytest.mark.anyio
PROBLEMS = [Example(id=f"p{i}", prompt=PROMPT, task="exact", problem={"answer": "a"}) for i in range(3)]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A server whose model writes two lines of `a` or `b`, and whose value model is fond of `a`."""
    async with a_world(tmp_path, FakeEngines(FakePolicy(FOUR_ANSWERS))) as world:
        transport = httpx.ASGITransport(application(world.context))
        async with AsyncClient("http://127.0.0.1:8000", max_retries=0, transport=transport) as client:
            yield client


@dataclass
class Node:
    trial_id: str
    parent_state: tuple[Draft, float] | None


class Deepening:
    """Asks and is told as TreeQuest's algorithms: always writes on at the newest node of each line."""

    def init_tree(self) -> list[tuple[tuple[Draft, float], float]]:
        return []

    def ask_batch(self, state: list[Any], size: int, actions: list[str]) -> tuple[list[Any], list[Node]]:
        newest = [state for state, _ in state[-size:]] or [None] * size
        return state, [Node(str(i), parent) for i, parent in enumerate(newest)]

    def tell(self, state: list[Any], trial_id: str, result: tuple[Any, float]) -> list[Any]:
        return [*state, result]

    def get_state_score_pairs(self, state: list[Any]) -> list[Any]:
        return state


@dataclass
class Message:
    role: str
    content: str


@dataclass
class SideBySide:
    """Asks as its_hub's algorithms: writes all candidates to their ends, a step at a time, and takes the best."""

    models: Models
    scored: list[list[str]] = field(default_factory=list)

    async def ainfer(self, lm: Models, prompt: str, budget: int) -> dict[str, str]:
        end, texts = lm.engine.end, [""] * budget
        while waiting := [i for i, text in enumerate(texts) if not text.endswith(end)]:
            asked = [[Message("user", prompt), *self._so_far(texts[i])] for i in waiting]
            for i, reply in zip(waiting, await lm.agenerate(asked, stop="\n"), strict=True):
                texts[i] += reply["content"]
        bare = [text.removesuffix(end) for text in texts]
        scores = await lm.ascore(prompt, bare)
        return {"role": "assistant", "content": bare[scores.index(max(scores))]}

    @staticmethod
    def _so_far(text: str) -> Sequence[Message]:
        return [Message("assistant", text)] if text else []


async def test_a_draft_grows_by_a_step_until_the_model_ends_it(client: AsyncClient) -> None:
    engine, drafts = Engine(client, PROMPT, 1.0), [Draft(), Draft()]
    for steps in (1, 2):
        drafts = await engine.extended(drafts)
        assert all(draft.text.count("\n") == draft.steps == steps and draft.open for draft in drafts)
    drafts = await engine.extended(drafts)
    assert all(draft.finished and draft.text.count("\n") == 2 for draft in drafts)
    assert engine.tokens == 2 * (2 + 2 + 1)
    assert await engine.extended([]) == []


async def test_every_arm_answers_within_its_budget_and_is_counted(client: AsyncClient) -> None:
    arms = [
        Ramify("ramify"),
        TreeQuest("asked and told", Deepening, batch=4),
        sized("side by side", SideBySide),
    ]
    rows = await Duel(client, 1.0, 2).rows(arms, PROBLEMS, PROBLEMS, Budget(tokens=100))
    assert [row.arm for row in rows] == [arm.name for arm in arms for _ in PROBLEMS]
    assert {row.problem for row in rows} == {"p0", "p1", "p2"}
    spent = {row.arm: row.tokens for row in rows}
    assert 20 < spent["ramify"] <= 100
    assert spent["side by side"] == 100, "twenty answers of five tokens"
    assert spent["asked and told"] == 20, "four lines, which it does not leave"
    assert len(markdown(rows).splitlines()) == 2 + len(arms)


@dataclass
class Says:
    """Answers always the same."""

    name: str
    text: str | None

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        return self.text


async def test_answers_are_graded_by_our_verifier(client: AsyncClient) -> None:
    arms = [Says("right", "b\na"), Says("wrong", "a\nb"), Says("none", None)]
    rows = await Duel(client, 1.0, 2).rows(arms, PROBLEMS, PROBLEMS, Budget(tokens=100))
    assert {row.arm: row.right for row in rows} == {"right": 1.0, "wrong": 0.0, "none": 0.0}


async def test_seconds_end_a_search_that_is_asked_and_told(client: AsyncClient) -> None:
    arm = TreeQuest("asked and told", Deepening)
    engine = Engine(client, PROMPT, 1.0)
    assert await arm.answer(engine, Budget(seconds=1e-9)) is not None, "the best draft is written to its end"
    assert engine.tokens == 5


def test_a_size_is_fitted_to_what_it_cost() -> None:
    arm = Sized("beam", lambda size: Ramify(str(size)), unit=4)
    assert arm.fitted(16, 1.0) == 16
    assert arm.fitted(16, 0.5) == 32
    assert arm.fitted(16, 1.3) == 12
    assert arm.fitted(16, 50.0) == 4


def test_the_table_compares_with_the_first_arm_over_the_same_problems() -> None:
    rows = [
        Row(arm, "9 tokens", f"p{i}", float(right), 9, 0.5)
        for arm, rights in (("ours", (1, 1, 1, 1)), ("theirs", (0, 0, 0, 0)))
        for i, right in enumerate(rights)
    ]
    *_, ours, theirs = markdown(rows).splitlines()
    assert ours == "| 9 tokens | `ours` | 100.0 % | 9 | 0.50 |  |"
    assert theirs == "| 9 tokens | `theirs` | 0.0 % | 9 | 0.50 | +100.0 [+100.0, +100.0] |"
