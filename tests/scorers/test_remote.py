"""A reward model on vLLM's own server, asked over HTTP: the values are those of the publishers' recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fixtures_engines import START_SECONDS, LiveEngines
from models import write_chat_policy
from ramify.engines import EngineConfig, EngineOptions, EngineStartFailed, ScorerOptions, Serving
from ramify.search.records import State
from scorer_models import write_classifier, write_process_reward_model
from vllm_process import KEY, served

pytestmark = [pytest.mark.scorers, pytest.mark.timeout(START_SECONDS + 120)]

TOLERANCE = 1e-3
OPTIONS = EngineOptions(dtype="float32", compile=False, policy_kv_bytes=1 << 26)
POOLING = ("--runner", "pooling", "--served-model-name", "rm")
STEPS = ("1 + 2 is 3.", "3 + 3 is 6.", "The answer is 6.")
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
USER = {"role": "user", "content": "What is 1 + 2 + 3?"}


def values(policy: Path, between: str, **options: Any) -> list[float]:
    """An answer after each of its steps, judged over HTTP by engines that have a policy alone."""
    chosen = ScorerOptions.model_validate({"kind": "http", "key": KEY, "served": "rm", **options})
    live = LiveEngines(
        EngineConfig(policy, serving=Serving(value="scorer"), options=OPTIONS, scorers={"": chosen})
    )
    tokenizer = live.engines.tokenizer
    tokens = tokenizer.encode_chat([USER])
    ends, states = [len(tokens)], []
    for step in STEPS:
        tokens = [*tokens, *tokenizer.encode_continuation(step + between)]
        ends.append(len(tokens))
        states.append(State(tokens, ends))
    try:
        assert list(live.engines.by_role) == ["policy"]
        return [score.value for score in live.run(live.engines.scorer.score(states))]
    finally:
        live.close()


@torch.no_grad()
def test_a_process_reward_model_by_pooling(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = write_process_reward_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answer = {"role": "assistant", "content": "<extra_0>".join(STEPS) + "<extra_0>"}
    messages = [{"role": "system", "content": SYSTEM}, USER, answer]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    logits = model(torch.tensor([ids]))[0]
    tag = tokenizer.convert_tokens_to_ids("<extra_0>")
    expected = [float(logits[i].softmax(-1)[1]) for i, token in enumerate(ids) if token == tag]
    policy = write_chat_policy(tmp_path / "policy")
    # By itself vLLM reads the tag of the published models, whose id this small tokenizer does not have.
    config = '{"tok_pooling_type": "ALL"}'
    with served(folder, tmp_path / "log", *POOLING, "--pooler-config", config) as address:
        found = values(policy, "\n\n", url=f"{address}/pooling", api="pooling", model=folder)
        assert found == pytest.approx(expected, abs=TOLERANCE)


@torch.no_grad()
def test_a_chat_classifier_by_classify(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = []
    for n in range(1, len(STEPS) + 1):
        answer = {"role": "assistant", "content": "".join(f"{step}\n" for step in STEPS[:n])}
        ids = tokenizer.apply_chat_template([USER, answer], return_dict=False)
        expected.append(float(model(torch.tensor([ids])).logits[0].softmax(-1)[1]))
    policy = write_chat_policy(tmp_path / "policy")
    with served(folder, tmp_path / "log", *POOLING) as address:
        told = {"url": f"{address}/classify", "api": "classify", "model": folder}
        found = values(policy, "\n", label="helpful", **told)
        assert found == pytest.approx(expected, abs=TOLERANCE)
        with pytest.raises(EngineStartFailed, match=r"the scorer cannot be used: .* answered 404"):
            values(policy, "\n", label="helpful", **{**told, "served": "another"})
