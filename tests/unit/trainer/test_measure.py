"""A policy is measured on the prompts that a server would give it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models import write_chat_policy
from ramify.engines.tokenizer import Tokenizer
from ramify_trainer.compute_thread import ComputeThread
from ramify_trainer.config import MeasureConfig
from ramify_trainer.gate.policy_scores import require_askable, score_policy

pytestmark = pytest.mark.anyio
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4 = ?"}]
ROWS = [
    {"id": "chat", "messages": TURNS, "answer": "7", "verifier": "exact"},
    {"id": "text", "prompt": "3 + 4 =", "answer": "7", "verifier": "exact"},
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(name="data")
def _data(tmp_path: Path) -> str:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return str(path)


async def test_the_gate_asks_in_the_very_tokens_that_the_server_gives_the_model(
    tmp_path: Path, data: str
) -> None:
    policy = write_chat_policy(tmp_path / "policy")
    config, server = MeasureConfig(data=data, problems=2, answers=2, max_tokens=4), Tokenizer(policy)
    require_askable(policy, config, 0)
    found = await score_policy(policy, config, 0, tmp_path / "kept.json", ComputeThread(), keep=1)
    assert {name: list(answers[0].prompt) for name, answers in found.answers.items()} == {
        "chat": server.encode_chat(TURNS),
        "text": server.encode("3 + 4 ="),
    }


async def test_a_chat_that_the_model_cannot_be_asked_is_refused_before_anything_is_paid_for(
    tmp_path: Path, data: str
) -> None:
    policy = write_chat_policy(tmp_path / "policy")
    (policy / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="the problem chat: the model's tokenizer has no chat template"):
        require_askable(policy, MeasureConfig(data=data), 0)


def test_end_tokens_are_those_of_the_generation_settings_or_else_of_the_model(tmp_path: Path) -> None:
    policy = write_chat_policy(tmp_path / "policy")
    own = Tokenizer(policy).eos_ids
    generation = json.loads((policy / "generation_config.json").read_text())
    (policy / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [5, 6]}))
    assert Tokenizer(policy).eos_ids == own | {5, 6}
    (policy / "generation_config.json").unlink()
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    assert Tokenizer(policy).eos_ids == own | {7}
