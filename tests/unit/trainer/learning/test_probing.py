"""A learner packs trees only for a network that reads a packed tree as it reads the tree's paths."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from architectures import OTHER, PLAIN, UNTIED, Architecture
from fakes_training import TREES, with_logprobs_of
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.networks import Reader, load_policy, load_value
from ramify_trainer.learning.packing_probe import longest_path, policy_fault, value_fault

CONFIG = LearningConfig(
    steps_per_round=1, tokens_per_batch=64, kl_beta=0.1, warmup_steps=0, threads=1, tracker="none"
)
PATH = tuple(range(40, 64))
"""Three times as long as the windows."""
NO_CLASSIFIER = ("cohere2", "llama4", "mamba")
"""transformers has none for them."""


def policy(folder: Path, architecture: Architecture) -> Reader:
    config = CONFIG
    if architecture.model_type == "mamba":  # transformers has no sdpa for what has no attention
        config = CONFIG.model_copy(update={"attention": "eager"})
    return Reader(load_policy(architecture.write(folder), config, trained=False), config, Accelerator())


def value(folder: Path, architecture: Architecture) -> Reader:
    model = load_value(architecture.write(folder, value=True), CONFIG, trained=False)
    return Reader(model, CONFIG, Accelerator())


@pytest.mark.parametrize("name", PLAIN)
def test_attention_over_everything_before_is_packed(tmp_path: Path, name: str) -> None:
    assert policy_fault(policy(tmp_path / "policy", PLAIN[name]), PATH) is None
    assert value_fault(value(tmp_path / "value", PLAIN[name]), PATH) is None


@pytest.mark.parametrize("name", OTHER)
def test_windows_chunks_and_recurrences_are_not_packed(tmp_path: Path, name: str) -> None:
    assert policy_fault(policy(tmp_path / "policy", OTHER[name]), PATH) is not None
    if name not in NO_CLASSIFIER:
        assert value_fault(value(tmp_path / "value", OTHER[name]), PATH) is not None


def test_a_window_that_no_path_outgrows_leaves_trees_packed(tmp_path: Path) -> None:
    wide = Architecture("mistral", {**UNTIED, "sliding_window": len(PATH)})
    reader = policy(tmp_path / "policy", wide)
    assert policy_fault(reader, PATH) is None
    assert policy_fault(reader, (*PATH, *PATH)) is not None


def test_a_value_model_of_one_value_cannot_be_told_and_is_not_packed(tmp_path: Path) -> None:
    reader = value(tmp_path / "value", PLAIN["llama"])
    torch.nn.init.zeros_(reader.network.model.score.weight)
    assert value_fault(reader, PATH) == "every text has the same value, so that a difference would not show"


def test_the_probe_is_the_longest_path_of_the_round() -> None:
    assert longest_path([]) == ()
    assert longest_path(TREES[:1]) == (63, 10, 98, 10, 99, 0)


def test_a_windowed_model_is_trained_path_by_path_on_what_it_says_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = Architecture("mistral", {**UNTIED, "sliding_window": 3})
    base.write(tmp_path / "policy", dtype="float32")
    base.write(tmp_path / "value", dtype="float32", value=True)
    trees = with_logprobs_of(tmp_path / "policy", TREES[:4])
    learner = Learner.start(CONFIG, tmp_path / "policy", tmp_path / "value", tmp_path / "policy", seed=3)
    with caplog.at_level(logging.WARNING, "ramify_trainer"):
        figures = learner.round(trees, seed=1).figures()
    assert figures["packed"] == 0
    assert figures["policy/log_ratio_squared"] == pytest.approx(0, abs=1e-8)
    assert figures["policy/kl"] == pytest.approx(0, abs=1e-6)
    told = [message for message in caplog.messages if "reads path by path" in message]
    assert [message.split()[:3] for message in told] == [
        ["the", "policy", "(MistralForCausalLM)"],
        ["the", "value", "(MistralForSequenceClassification)"],
    ]
