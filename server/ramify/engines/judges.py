"""A model that judges, from its files and the settings: which label means right, and the form of its input.

Everything that cannot be used is refused here, before an engine starts, with what to do about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramify.engine_options import ScorerOptions
from ramify.engines.errors import EngineError, EngineStartFailed, RequestRefused
from ramify.engines.formats import FORMATS, RUBRIC, Format, InputWriter, Write
from ramify.engines.model_folders import ModelFolder, check_files, facts, model_config, read_model_folder
from ramify.engines.tokenizer import Tokenizer
from ramify.search.records import State

ROLE = "scorer's model"
TRIAL = ("1 + 1 =", " 2\n\n 2 + 1 = 3")
"""Prompt and answer on which a form is tried."""
SPECIAL = re.compile(r"<\S+>")
"""The look of a special token."""
PROCESS = "Qwen2ForProcessRewardModel"
TOKENWISE = (PROCESS, "Qwen2ForRewardModel")
"""Architectures that vLLM pools token by token only."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How an engine judges with a model."""

    labels: int = 1
    label: int = 0
    """The one that means right. With several the logit is its log-odds against all others."""
    tokens: tuple[str, str] | None = None
    """(bad, good) entries of a causal model's vocabulary, whose next-token logits are compared in place of labels."""
    tokenwise: bool = False
    """The model is pooled token by token only."""


ONE_LABEL = Reading()
"""A value model's."""


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """A model that judges, ready to be started."""

    folder: ModelFolder
    reading: Reading
    tokenizer: Tokenizer
    write: Write | None
    """Makes its input; `None`: the policy's token ids are its own."""
    overhead: int = 0
    """Tokens of its input that are neither prompt nor answer."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the policy itself about an answer."""

    write: Write
    overhead: int
    """Tokens of its input that are neither prompt nor answer."""
    tokens: tuple[int, int]
    """Ids of its answers: (bad, good)."""


def read_value(path: Path, policy: Tokenizer) -> JudgeModel:
    """Check a value model. With another tokenizer than the policy's it reads the text without special tokens.

    Raises `EngineStartFailed`."""
    folder, tokenizer = read_model_folder(path, "value model"), Tokenizer(path)
    if policy.same_as(tokenizer):
        return JudgeModel(folder, ONE_LABEL, tokenizer, None)

    def write(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        return [tokenizer.encode(policy.decode(ids)) for ids in sequences]

    return JudgeModel(folder, ONE_LABEL, tokenizer, write)


def read_question(options: ScorerOptions, policy: Tokenizer) -> Question:
    """Prepare the policy to judge what it writes. Raises `EngineStartFailed`."""
    tokens = answer_tokens(options, policy)
    assert tokens is not None  # a judge has its usual answers
    form = judge_format(options, None, policy, policy)
    return Question(*writer(form, policy, policy, options), tokens)


def read_judge(options: ScorerOptions, policy: Tokenizer) -> JudgeModel:
    """Check the model that the settings name, against the policy's tokenizer. Raises `EngineStartFailed`."""
    assert options.model is not None
    check_files(options.model, ROLE, weights=options.kind != "http")
    config = _own_config(options)
    tokenizer = Tokenizer(options.model)
    form = judge_format(options, config, tokenizer, policy)
    reading = _reading(options, config, tokenizer)
    same = form.layout == "tokens"
    write, overhead = (_within(config), 0) if same else writer(form, tokenizer, policy, options)
    return JudgeModel(facts(options.model, config), reading, tokenizer, write, overhead)


def _within(config: Any) -> Write:
    """Return what hands token ids on if the model has them: an engine that is given others dies."""
    size = int(config.get_text_config().vocab_size)

    def write(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        largest = max(map(max, sequences))
        if largest >= size:
            raise RequestRefused(f"the scorer's model has no token {largest}: its ids are below {size}")
        return [list(ids) for ids in sequences]

    return write


def writer(
    form: Format, judge: Tokenizer, policy: Tokenizer, options: ScorerOptions
) -> tuple[InputWriter, int]:
    """Return what makes the judge's inputs, and how many tokens it added to an answer of two steps.

    Raises `EngineStartFailed`."""
    if form.tag and not judge.hf.is_fast:
        raise EngineStartFailed(
            f"the tokenizer of {options.model} has no tokenizer.json, by which tags are found"
        )
    if SPECIAL.fullmatch(form.tag):  # in a model that does not have it, it would be a text like any other
        _one_token(judge, form.tag, options, "tag")
    write = InputWriter(form, judge, policy)
    try:
        start = policy.encode(TRIAL[0])
        end = policy.encode_continuation(TRIAL[1])
        (made,) = write([State([*start, *end], (len(start), len(start) + len(end)))])
    except EngineError as error:
        raise EngineStartFailed(f"scorer.format does not fit {options.model}: {error}") from error
    return write, max(0, len(made) - len(judge.encode("".join(TRIAL))))


def judge_format(options: ScorerOptions, config: Any, tokenizer: Tokenizer, policy: Tokenizer) -> Format:
    """Return the form of the model's input: what the settings say, else what its architecture implies."""
    chats, same = bool(tokenizer.hf.chat_template), tokenizer.same_as(policy)
    name = options.format
    if options.kind == "judge":
        name = "chat" if chats else "text"
    elif name == "auto":
        architecture = _architecture(config)
        if architecture == PROCESS:
            name = "qwen-prm"
        elif architecture.endswith("ForTokenClassification"):
            name = "trl-prm"
        elif same:
            name = "tokens"
        elif chats:
            name = "chat"
        else:
            raise EngineStartFailed(
                f"{options.model} has another tokenizer than the policy and no chat template: say how it reads "
                "prompt and answer (setting scorer.format: text, or chat once its tokenizer_config.json has a template)"
            )
    form = FORMATS[name]
    if form.layout == "tokens" and not same:
        raise EngineStartFailed(
            f"scorer.format tokens hands the policy's token ids on, but {options.model} has another tokenizer: choose "
            "text or chat"
        )
    if form.layout == "chat" and not chats:
        raise EngineStartFailed(
            f"{options.model} has no chat template, which scorer.format {name} needs: choose text, or add the "
            "template to its tokenizer_config.json"
        )
    if options.kind == "judge":
        form = replace(form, rubric=options.rubric or RUBRIC)
    told = {field: getattr(options, field) for field in ("system", "split", "tag")}
    told = {field: value for field, value in told.items() if value is not None}
    form = replace(form, **told)
    idle = {"system": form.layout != "chat", "tag": form.layout == "tokens", "split": not form.tag}
    if useless := [field for field in told if idle[field]]:
        raise EngineStartFailed(f"scorer.{useless[0]} has no effect on scorer.format {name}")
    return form


def answer_tokens(options: ScorerOptions, tokenizer: Tokenizer) -> tuple[int, int] | None:
    """Return the ids of the (bad, good) tokens that a causal model answers with; `None` if none are named.

    Raises `EngineStartFailed`."""
    usual = {"math-shepherd": ("-", "+")}.get(options.format)
    if options.kind == "judge":
        usual = ("No", "Yes")
    bad, good = (given or (usual and usual[i]) for i, given in enumerate((options.bad, options.good)))
    if not bad or not good:
        return None
    ids = _one_token(tokenizer, bad, options, "bad"), _one_token(tokenizer, good, options, "good")
    if ids[0] == ids[1]:
        raise EngineStartFailed(
            f"scorer.good and scorer.bad are the same token of {options.model or 'the policy'}"
        )
    return ids


def _reading(options: ScorerOptions, config: Any, tokenizer: Tokenizer) -> Reading:
    architecture = _architecture(config)
    classifies = architecture.endswith(("ForSequenceClassification", "ForTokenClassification"))
    tokens = answer_tokens(options, tokenizer)
    if architecture.endswith("ForCausalLM"):
        if tokens is None:
            raise EngineStartFailed(
                f"{options.model} is a causal language model, which has no label: name the tokens whose logits judge "
                "(settings scorer.good and scorer.bad), choose scorer.format math-shepherd, or ask it in words "
                "(scorer.kind judge)"
            )
        bad, good = tokenizer.hf.convert_ids_to_tokens(list(tokens))
        return Reading(tokens=(bad, good))
    if tokens is not None:
        raise EngineStartFailed(
            f"{options.model} is {architecture}: comparing tokens (scorer.good and scorer.bad, kind judge) needs a "
            "causal language model"
        )
    if not classifies and architecture not in TOKENWISE:
        raise EngineStartFailed(
            f"{options.model} is {architecture or 'of no architecture'}, which no scorer is made of: a sequence or "
            f"token classifier, {' or '.join(TOKENWISE)}, or a causal language model is needed"
        )
    names = _labels(config, architecture)
    process = architecture == PROCESS or architecture.endswith("ForTokenClassification")
    return Reading(len(names), _label(options, names, process), tokenwise=architecture in TOKENWISE)


def _labels(config: Any, architecture: str) -> Sequence[str]:
    """Return the names of a classifier's labels, as many as vLLM gives it."""
    if architecture in TOKENWISE:
        return ("bad", "good") if architecture == PROCESS else ("reward",)
    return [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)]


def _label(options: ScorerOptions, names: Sequence[str], process: bool) -> int:
    if options.label is not None:
        for i, name in enumerate(names):
            if options.label in (name, str(i)):
                return i
    elif len(names) == 1:
        return 0
    elif process and len(names) == 2:
        return 1
    said = "names none of" if options.label is not None else "must name the one that means right of"
    raise EngineStartFailed(
        f"scorer.label {said} the {len(names)} labels of {options.model}: {', '.join(names[:20])}"
    )


def _own_config(options: ScorerOptions) -> Any:
    """Read config.json. A model that brings code of its own is refused unless vLLM has its architecture built in."""
    assert options.model is not None
    try:
        raw = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineStartFailed(f"{options.model}/config.json is not valid JSON: {error}") from error
    named = raw.get("architectures") or [""]
    known = named[0] in TOKENWISE or named[0].endswith(
        ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification")
    )
    if raw.get("auto_map") and not known:
        raise EngineStartFailed(
            f"{options.model} is {named[0] or 'of no architecture'} with code of its own (auto_map in config.json), "
            "which is never run: serve it elsewhere, or take a model whose architecture vLLM has"
        )
    return model_config(options.model, ROLE)


def _architecture(config: Any) -> str:
    return str((config.architectures or [""])[0])


def _one_token(tokenizer: Tokenizer, text: str, options: ScorerOptions, field: str) -> int:
    ids = tokenizer.encode_continuation(text)
    if len(ids) != 1 or ids[0] == tokenizer.hf.unk_token_id:
        raise EngineStartFailed(
            f"scorer.{field} {text!r} is not one token of {options.model or 'the policy'} but {len(ids)}: "
            f"{tokenizer.hf.convert_ids_to_tokens(ids)}; name one token"
        )
    return ids[0]
