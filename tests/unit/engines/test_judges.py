"""Which models can judge, and what is said of those that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models import write_chat_policy
from ramify.engines import EngineStartFailed, ScorerOptions
from ramify.engines.errors import RequestRefused
from ramify.engines.judges import JudgeModel, Reading, read_judge, read_question
from ramify.engines.tokenizer import Tokenizer
from scorer_models import (
    write_classifier,
    write_judge,
    write_math_shepherd,
    write_process_reward_model,
    write_token_classifier,
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_chat_policy(tmp_path_factory.mktemp("policy")))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    writers = {
        "classifier": write_classifier,
        "process": write_process_reward_model,
        "shepherd": write_math_shepherd,
        "tokens": write_token_classifier,
        "judge": write_judge,
    }
    folder = tmp_path_factory.mktemp("models")
    for name, write in writers.items():
        write(folder / name)  # type: ignore[operator]
    return {name: folder / name for name in writers}


def read(policy: Tokenizer, model: Path, kind: str = "model", **options: Any) -> JudgeModel:
    return read_judge(ScorerOptions.model_validate({"kind": kind, "model": model, **options}), policy)


def edited(model: Path, folder: Path, **config: Any) -> Path:
    """The same model with other words in its config.json."""
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(
        json.dumps({**json.loads((model / "config.json").read_text()), **config})
    )
    return folder


@pytest.mark.parametrize(
    ("name", "options", "reading"),
    [
        ("process", {}, Reading(labels=2, label=1, tokenwise=True)),
        ("tokens", {}, Reading(labels=2, label=1)),
        ("tokens", {"label": "0"}, Reading(labels=2, label=0)),
        ("classifier", {"label": "helpful"}, Reading(labels=3, label=1)),
        ("classifier", {"label": "2"}, Reading(labels=3, label=2)),
        ("shepherd", {"format": "math-shepherd"}, Reading(tokens=("-", "+"))),
        ("shepherd", {"format": "text", "good": "A", "bad": "B"}, Reading(tokens=("B", "A"))),
        ("judge", {"kind": "judge"}, Reading(tokens=("No", "Yes"))),
    ],
)
def test_the_architecture_says_how_a_model_is_read(
    policy: Tokenizer, models: dict[str, Path], name: str, options: dict[str, Any], reading: Reading
) -> None:
    assert read(policy, models[name], **options).reading == reading


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("classifier", {}, r"scorer\.label must name .* the 3 labels of .*: other 0, helpful, other 2"),
        ("classifier", {"label": "good"}, r"scorer\.label names none of the 3 labels"),
        ("classifier", {"label": "1", "format": "tokens"}, "has another tokenizer: choose text or chat"),
        ("classifier", {"label": "1", "good": "A", "bad": "B"}, "needs a causal language model"),
        ("shepherd", {}, "another tokenizer than the policy and no chat template: say how"),
        ("shepherd", {"format": "text"}, r"no label: name the tokens .* scorer\.good and scorer\.bad"),
        ("shepherd", {"format": "chat"}, r"no chat template, which scorer\.format chat needs"),
        ("shepherd", {"format": "math-shepherd", "good": "good"}, "scorer.good 'good' is not one token"),
        ("shepherd", {"format": "math-shepherd", "good": "-"}, r"scorer\.good and scorer\.bad are the same"),
        ("tokens", {"format": "qwen-prm"}, "has no chat template"),
        ("judge", {"format": "qwen-prm", "good": "A", "bad": "B"}, "scorer.tag '<extra_0>' is not one token"),
        ("shepherd", {"kind": "judge"}, "scorer.bad 'No' is not one token"),
        (
            "shepherd",
            {"format": "math-shepherd", "system": "S"},
            "system has no effect on scorer.format math",
        ),
        ("shepherd", {"format": "text", "good": "A", "bad": "B", "split": "#"}, "split has no effect"),
    ],
)
def test_what_cannot_judge_is_refused_with_what_to_do(
    policy: Tokenizer, models: dict[str, Path], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineStartFailed, match=message):
        read(policy, models[name], **options)


def test_code_of_a_models_own_is_never_run(
    policy: Tokenizer, models: dict[str, Path], tmp_path: Path
) -> None:
    own = {"architectures": ["OwnRewardModel"], "auto_map": {"AutoModel": "own.OwnRewardModel"}}
    with pytest.raises(EngineStartFailed, match=r"OwnRewardModel with code of its own .* never run"):
        read(policy, edited(models["classifier"], tmp_path, **own))


def test_an_architecture_that_judges_nothing_is_refused(
    policy: Tokenizer, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(
        EngineStartFailed, match="LlamaModel, which no scorer is made of: a sequence or token"
    ):
        read(policy, edited(models["classifier"], tmp_path, architectures=["LlamaModel"]))


def test_a_model_with_the_policys_tokenizer_reads_its_token_ids(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    judge = read(Tokenizer(tmp_path), tmp_path, label="helpful")
    with pytest.raises(EngineStartFailed, match=r"scorer\.tag has no effect on scorer\.format tokens"):
        read(Tokenizer(tmp_path), tmp_path, label="helpful", tag="#", split="\n")
    assert judge.write is not None
    assert judge.write([[1, 2, 3]]) == [[1, 2, 3]]
    with pytest.raises(RequestRefused, match="the scorer's model has no token 267: its ids are below 267"):
        judge.write([[1], [1, 267]])


def test_what_a_form_adds_is_no_room_of_the_answers(policy: Tokenizer, models: dict[str, Path]) -> None:
    assert (
        read(policy, models["tokens"]).overhead == 0
    )  # its tags are fewer than the line ends that they replace
    said, long = (read(policy, models["process"], system=text).overhead for text in ("", "Be strict. " * 10))
    assert said > 0
    assert long == said + 110, "one byte is a token"
    assert read_question(ScorerOptions(kind="judge", good="Y", bad="N"), policy).overhead > 0


def test_a_policy_judges_if_its_answers_are_one_token_each(
    policy: Tokenizer, models: dict[str, Path]
) -> None:
    with pytest.raises(EngineStartFailed, match=r"scorer\.bad 'No' is not one token of the policy but 2"):
        read_question(ScorerOptions(kind="judge"), policy)
    assert len(read_question(ScorerOptions(kind="judge"), Tokenizer(models["judge"])).tokens) == 2
    assert read_question(ScorerOptions(kind="judge", good="Y", bad="N"), policy).tokens == (45, 56)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "1"}, "label has no effect without kind"),
        ({"kind": "model"}, "needs model, the directory"),
        ({"kind": "judge", "label": "1"}, "label has no effect on a judge"),
        (
            {"kind": "model", "model": "m", "rubric": "{question} {answer}"},
            "rubric has no effect on kind model",
        ),
        ({"kind": "judge", "rubric": "{question}"}, "rubric lacks {answer}"),
    ],
)
def test_settings_without_effect_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScorerOptions.model_validate(options)
