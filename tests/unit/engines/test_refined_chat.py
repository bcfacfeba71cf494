"""A request for a better answer through a real chat template: the turns that the template's author meant."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from models import write_tokenizer
from ramify.engines import Tokenizer
from ramify.rewards import Message, registry
from ramify.service.errors import BadRequest
from ramify.service.refinement import asker, check_room, of_task, reviser_of
from ramify.service.search_spec import SearchSpec

CHAT = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('the system speaks first') }}{% endif %}"
    "{{ '- ' if m['role'] == 'user' else '+ ' }}{{ m['content'].strip() }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '=' if enable_thinking | default(true) else '= 0' }}{% endif %}"
)
ONE_TURN = (
    "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0]['content'] }}"
)
TASK = registry.task("countdown", {"numbers": [3, 5], "target": 8})


def tokenizer(folder: Path, template: str = CHAT) -> Tokenizer:
    write_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template)
    return Tokenizer(folder)


def asked(**fields: object) -> SearchSpec:
    return SearchSpec(messages=(Message("user", "3 5 to 8"),), **fields)  # type: ignore[arg-type]


async def unwritten(prompt: Sequence[int], tokens: int) -> str:
    raise AssertionError("the task has feedback")


def test_the_answer_is_the_assistants_turn_and_the_request_the_users(tmp_path: Path) -> None:
    reader = tokenizer(tmp_path)
    ask = asker(asked(template={"enable_thinking": False}), "", "{feedback}", reader)
    revision = asyncio.run(reviser_of(of_task(TASK), ask, 100)("5 - 3 = 2\n", None, unwritten))
    assert revision.feedback == "the result is 2, not 8"
    turns = [
        {"role": "user", "content": "3 5 to 8"},
        {"role": "assistant", "content": "5 - 3 = 2\n"},
        {"role": "user", "content": "the result is 2, not 8"},
    ]
    assert list(revision.prompt) == reader.encode_chat(turns, {"enable_thinking": False})


def test_a_template_that_takes_one_turn_is_found_out_before_the_search(tmp_path: Path) -> None:
    ask = asker(asked(), "", "{feedback}", tokenizer(tmp_path, ONE_TURN))
    with pytest.raises(BadRequest, match=r"request for a better answer: the chat template refuses.*one turn"):
        check_room(ask, 100, 10)
