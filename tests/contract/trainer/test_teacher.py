"""A teacher's searches in place of the student's own, against two whole servers over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fakes_training import Site, a_site, small
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.config import LoopConfig, TeacherConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.rounds import Loop
from ramify_trainer.loop.teacher import require_same_tokens, teacher_client

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def taught(folder: Path, student: Site, teacher: Site, **learning: Any) -> AsyncIterator[Loop]:
    asked = small(folder, student.url, student.admin_url).model_dump(mode="json")
    config = LoopConfig.model_validate(
        {**asked, "teacher": {"url": teacher.url}, "learning": {**asked["learning"], **learning}}
    )
    async with (
        AsyncClient(student.url) as client,
        AsyncAdmin(student.admin_url) as admin,
        teacher_client(config.teacher) as searching,
    ):
        loop = Loop(config, client, admin, lambda *_: None, teacher=searching)
        with loop.worker:
            yield loop


@pytest.mark.parametrize("objective", ["sft", "visits"])
async def test_the_student_learns_from_searches_of_its_teacher_alone(tmp_path: Path, objective: str) -> None:
    async with (
        a_site(tmp_path) as student,
        a_site(tmp_path / "teacher") as teacher,
        taught(tmp_path, student, teacher, objective=objective) as loop,
    ):
        await loop.start()
        record = await loop.puller.holding(loop.round())
        assert (record.trees, record.result, record.release) == (6, "promoted", "v000002")
        assert (await teacher.searches(), await student.searches()) == (6, 0)
        assert (student.engines.loads, teacher.engines.loads) == (["v000002"], [])
        assert (await teacher.log.get_consumer("loop")) is not None
        assert (await student.log.get_consumer("loop")) is None
        # Now the student serves v000002, beside which the teacher's v000001 is no older one.
        assert (await loop.puller.holding(loop.round())).training["staleness"] == 0


async def test_a_policy_whose_tokens_mean_something_else_is_refused_before_anything_is_searched(
    tmp_path: Path,
) -> None:
    async with a_site(tmp_path) as site, AsyncClient(site.url) as teacher:
        policy = tmp_path / "base" / "v000001" / "policy"
        await require_same_tokens(teacher, policy)
        for changed, fault in (({"a": 98, "b": 97}, "other texts"), ({chr(127): None}, "more tokens than")):
            other = tmp_path / fault.replace(" ", "_")
            shutil.copytree(policy, other)
            spelled = json.loads((other / "tokenizer.json").read_text())
            vocabulary = {**spelled["model"]["vocab"], **changed}
            spelled["model"]["vocab"] = {text: i for text, i in vocabulary.items() if i is not None}
            (other / "tokenizer.json").write_text(json.dumps(spelled))
            with pytest.raises(TrainerError, match=fault):
                await require_same_tokens(teacher, other)
        other = tmp_path / "other_template"
        shutil.copytree(policy, other)
        (other / "chat_template.jinja").write_text("Q: {{ messages[0]['content'] }}")
        with pytest.raises(TrainerError, match="chat template writes a conversation otherwise"):
            await require_same_tokens(teacher, other)
        assert await site.searches() == 0


async def test_a_teacher_is_not_sent_the_key_of_the_students_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMIFY_API_KEY", "the-students")
    async with teacher_client(TeacherConfig(url="http://teacher")) as teacher:
        assert teacher is not None
        assert teacher.configuration.headers == {}


async def test_a_teacher_that_is_a_release_needs_somebody_who_serves_it() -> None:
    with pytest.raises(TrainerError, match=r"give teacher\.url"):
        async with teacher_client(TeacherConfig(release="shipped")):
            pass


@pytest.mark.parametrize("objective", ["tree_ppo", "path_ppo"])
def test_what_compares_a_policy_with_its_own_draws_takes_none_of_a_teacher(objective: str) -> None:
    asked = {"teacher": {"url": "http://teacher"}, "learning": {"objective": objective}}
    with pytest.raises(ValidationError, match=f"learning.objective is '{objective}'"):
        LoopConfig.model_validate(asked)
    asked["learning"]["train_policy"] = False  # type: ignore[assignment]
    assert LoopConfig.model_validate(asked).teacher is not None


@pytest.mark.parametrize("given", [{}, {"url": "http://teacher", "release": "shipped"}])
def test_a_teacher_is_a_server_or_a_release(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="give either url or release"):
        TeacherConfig.model_validate(given)


def test_a_teachers_release_is_found_from_the_file_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "loop.toml"
    file.write_text('base = "small"\n[teacher]\nrelease = "large"\n[learning]\nobjective = "sft"\n')
    config = LoopConfig.read(file)
    assert config.teacher is not None
    assert (config.base, config.teacher.release) == (str(tmp_path / "small"), str(tmp_path / "large"))
