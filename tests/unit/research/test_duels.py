"""Duels, our side of them: a whole server around a fake model, and stand-ins that ask what the libraries ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.api.world import FOUR_ANSWERS, PROMPT, FakeEngines, a_world
from fakes import ASKED, FakePolicy
from ramify.api.app import application
from ramify.rewards.verifier import Example
from ramify_client import AsyncClient
from research.duels.arms import Budget, Ramify, Sized
from research.duels.engine import Draft, Engine
from research.duels.its_hub import Models, sized
from research.duels.refinement import Ramify as RamifyRefining
from research.duels.refinement import Rules, public
from research.duels.refinement import TreeQuest as TreeQuestRefining
from research.duels.report import markdown
from research.duels.run import Duel, Row
from research.duels.treequest import Node, TreeQuest

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
class Trial:
    trial_id: str
    parent_state: Node | None


class Deepening:
    """Asks and is told as TreeQuest's algorithms: always makes children of the newest node."""

    def init_tree(self) -> list[tuple[Node, float]]:
        return []

    def ask_batch(self, state: list[Any], size: int, actions: list[str]) -> tuple[list[Any], list[Trial]]:
        newest = state[-1][0] if state else None
        return state, [Trial(str(i), newest) for i in range(size)]

    def tell(self, state: list[Any], trial_id: str, result: tuple[Node, float]) -> list[Any]:
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


async def test_texts_are_written_on_by_a_step_or_to_their_end(client: AsyncClient) -> None:
    engine, texts = Engine(client, PROMPT, 1.0), ["", ""]
    for steps in (1, 2):
        drafts = await engine.steps(texts)
        texts = [draft.text for draft in drafts]
        assert all(draft.text.count("\n") == steps and not draft.finished for draft in drafts)
    assert await engine.steps(texts) == [Draft(text, finished=True) for text in texts]
    assert engine.tokens == 2 * (2 + 2 + 1)
    (whole,) = await engine.answers(["b\n"])
    assert whole.finished
    assert (whole.text[:2], whole.text.count("\n")) == ("b\n", 2)


def test_a_child_keeps_one_step_more_than_its_parent_and_never_the_last() -> None:
    text = Draft("1\n2\n3", finished=True)
    assert [Node(text, 0.5, kept).beginning for kept in (0, 1, 2)] == ["1\n", "1\n2\n", "1\n2\n"]
    assert Node(Draft("1"), 0.5, 0).beginning == ""


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
    assert 90 < spent["asked and told"] <= 100
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


def test_a_budget_says_how_many_more_answers_it_pays_for() -> None:
    tokens, seconds = Budget(tokens=100), Budget(seconds=2.0)
    assert tokens.room(0, 0, 9.0) > 1000
    assert [tokens.room(spent, spent // 5, 9.0) for spent in (50, 95, 100, 120)] == [10, 1, 0, 0]
    assert seconds.room(10**6, 1, 1.9) > 1000
    assert seconds.room(0, 0, 2.0) == 0


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


ASK = "{prompt}{answer}|{feedback}" + ASKED
RULES = Rules(template=ASK, max_tokens=8, parallel=2)
WRONG = [Example(id=f"p{i}", prompt=PROMPT, task="exact", problem={"answer": "c"}) for i in range(2)]


async def test_refinement_is_asked_for_by_the_same_prompts_on_both_sides(tmp_path: Path) -> None:
    policy = FakePolicy(FOUR_ANSWERS)
    refine = {"algorithm": "mcts", "action": {"kind": "refine", "template": ASK}}
    sides = [
        RamifyRefining("ramify", refine, RULES),
        TreeQuestRefining("asked and told", Deepening, RULES),
    ]
    sent: dict[str, set[str]] = {}
    async with a_world(tmp_path, FakeEngines(policy)) as world:
        transport = httpx.ASGITransport(application(world.context))
        async with AsyncClient("http://127.0.0.1:8000", max_retries=0, transport=transport) as client:
            for side in sides:
                policy.requests.clear()
                rows = await Duel(client, 1.0, 1).rows([side], WRONG, (), Budget(tokens=200))
                assert all(100 < row.tokens <= 200 and row.right == 0.0 for row in rows)
                sent[side.name] = {text for text, *_ in policy.requests}
    for prompts in sent.values():
        assert PROMPT in prompts
        better = prompts - {PROMPT}
        assert better
        for text in better:
            answer = text.removeprefix(PROMPT).partition("|")[0]
            assert text == f"{PROMPT}{answer}|the answer {answer.strip()[-1:]!r} is not right{ASKED}"


def test_a_duel_shows_searches_no_hidden_test() -> None:
    problem = {"public": [{"input": "1", "output": "1"}], "hidden": [{"input": "2", "output": "2"}]}
    shown = public(Example(prompt="?", task="code", problem=problem))
    assert shown == {"public": problem["public"], "hidden": [], "scoring": "share"}
    assert public(WRONG[0]) == {"answer": "c"}
