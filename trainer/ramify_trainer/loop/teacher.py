"""A teacher: another server, whose searches the policy learns from in place of its own.

The student's server serves what is trained; the teacher's searches, and its log is read. A teacher never changes, and
its release ids mean nothing here. The student drew none of its tokens, so only objectives that imitate take its trees
(`LoopConfig`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from transformers import AutoTokenizer

from ramify.tokens import chat_tokens
from ramify_client import AsyncClient, BadRequest
from ramify_client.calls import Call, read
from ramify_trainer.config import TeacherConfig, key_in
from ramify_trainer.errors import TrainerError

ASKED_AT_ONCE = 1_000
"""Token ids of one request."""
CONVERSATION = [
    {"role": "user", "content": "Make 24 from 3, 5, 7 and 8."},
    {"role": "assistant", "content": "8 * 3 = 24"},
    {"role": "user", "content": "Use them all."},
]
"""A conversation that both must write alike."""


class Detokenized(BaseModel):
    prompt: str


class Tokenized(BaseModel):
    tokens: list[int]


@asynccontextmanager
async def teacher_client(config: TeacherConfig | None, **options: Any) -> AsyncIterator[AsyncClient | None]:
    """Open a client of the teacher's server, with the options of `AsyncClient`; `None` without a teacher.

    Raises `TrainerError` for a release that nobody serves."""
    if config is None:
        yield None
        return
    if config.url is None:
        raise TrainerError(
            "teacher.release is served by `ramify-trainer loop` alone: serve it, and give teacher.url"
        )
    # The key of the student's server is not sent to another.
    async with AsyncClient(config.url, key_in(config.key_file) or "", **options) as client:
        yield client


async def require_same_tokens(teacher: AsyncClient, policy: Path) -> None:
    """Raise `TrainerError` unless every token id means to the teacher what it means to the policy, and both are asked
    in the same words."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    size = len(tokenizer)
    for start in range(0, size, ASKED_AT_ONCE):
        ids = range(start, min(start + ASKED_AT_ONCE, size))
        if await text_at(teacher, ids) != tokenizer.decode([*ids]):
            raise TrainerError(
                f"the teacher's tokens {ids[0]} to {ids[-1]} have other texts than the policy's: it needs a teacher "
                "with the same tokenizer"
            )
    if await text_at(teacher, range(size, size + 1)):
        raise TrainerError(
            f"the teacher has more tokens than the policy's {size}: it needs one with the same tokenizer"
        )
    if tokenizer.chat_template:
        call = Call("POST", "/tokenize", read(Tokenized), {"messages": CONVERSATION})
        if (await teacher.send(call)).tokens != chat_tokens(tokenizer, CONVERSATION):
            raise TrainerError(
                "the teacher's chat template writes a conversation otherwise than the policy's"
            )


async def text_at(teacher: AsyncClient, ids: range) -> str | None:
    """Return the text of token ids; `None` if the teacher does not know them all."""
    call = Call("POST", "/detokenize", read(Detokenized), {"tokens": [*ids]})
    try:
        return (await teacher.send(call)).prompt
    except BadRequest:
        return None
