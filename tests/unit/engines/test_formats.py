"""The input of models that judge, in text: what stands where, and what an answer cannot write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models import CHAT_TEMPLATE, write_chat_policy
from ramify.engines.formats import FORMATS, RUBRIC, Format, InputWriter, StateReader
from ramify.engines.tokenizer import Tokenizer
from ramify.search.records import State
from scorer_models import write_bytes_tokenizer

USER: list[dict[str, str]] = [{"role": "user", "content": "1+2?"}]
TURNS: list[dict[str, str]] = [
    {"role": "system", "content": "Be brief."},
    *USER,
    {"role": "assistant", "content": "3"},
    {"role": "user", "content": "And 3+3?"},
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(write_chat_policy(tmp_path_factory.mktemp("policy")))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("judge")
    write_bytes_tokenizer(folder, added=("<extra_0>",), words=(" ки",))
    return Tokenizer(folder)


def state(policy: Tokenizer, prompt: Sequence[int], *actions: str) -> State:
    tokens, ends = list(prompt), [len(prompt)]
    for action in actions:
        tokens += policy.encode_continuation(action)
        ends.append(len(tokens))
    return State(tokens, ends)


Written = Callable[..., str]


@pytest.fixture
def written(policy: Tokenizer, judge: Tokenizer) -> Written:
    def write(form: Format, messages: Sequence[dict[str, str]] | str, *actions: str, **template: Any) -> str:
        chat = not isinstance(messages, str)
        prompt = policy.encode_chat(messages, template) if chat else policy.encode(messages)  # type: ignore[arg-type]
        return str(judge.hf.decode(InputWriter(form, judge, policy)([state(policy, prompt, *actions)])[0]))

    return write


def test_steps_of_a_chat_are_tagged_and_the_input_ends_with_the_last_tag(written: Written) -> None:
    assert written(FORMATS["qwen-prm"], USER, "so\n", "2+1\n\n", "is 3").endswith(
        "<|turn|>user\n1+2?<|end|>\n<|turn|>assistant\nso\n2+1<extra_0>is 3<extra_0>"
    )


def test_the_input_of_a_beginning_begins_the_input_of_the_whole(policy: Tokenizer, judge: Tokenizer) -> None:
    prompt = policy.encode_chat(USER)
    for name in ("qwen-prm", "math-shepherd", "trl-prm"):
        form = Format(**{**{f: getattr(FORMATS[name], f) for f in Format.__slots__}, "split": "\n"})
        write = InputWriter(form, judge, policy)
        states = [state(policy, prompt, *["a\n", "b\n", "c\n"][:n]) for n in (1, 3, 2)]
        inputs = [write([one])[0] for one in states]
        assert write(states) == inputs, "together as each alone"
        inputs[1:] = inputs[:0:-1]
        assert inputs[1][: len(inputs[0])] == inputs[0]
        assert inputs[2][: len(inputs[1])] == inputs[1]


def test_without_a_text_that_ends_steps_each_action_is_one(written: Written) -> None:
    form = Format("text", tag="#", separator=" ")
    assert written(form, "Q: ", "a b ", "c\nd", "\n") == "Q: a b# c\nd#"


def test_an_answer_without_a_step_is_one_empty_step(written: Written) -> None:
    assert written(FORMATS["math-shepherd"], "Q") == "Q  ки"


def test_a_whole_chat_is_closed_as_its_template_closes_it(written: Written) -> None:
    assert written(FORMATS["chat"], TURNS, "It is ", "6") == (
        "<|turn|>system\nBe brief.<|end|>\n<|turn|>user\n1+2?<|end|>\n<|turn|>assistant\n3<|end|>\n"
        "<|turn|>user\nAnd 3+3?<|end|>\n<|turn|>assistant\nIt is 6<|end|>\n"
    )


def test_a_system_message_of_the_format_stands_in_place_of_the_prompts(written: Written) -> None:
    said = written(Format("chat", system="Judge."), TURNS, "6")
    assert said.startswith("<|turn|>system\nJudge.<|end|>\n<|turn|>user\n1+2?")
    assert "Be brief." not in said


def test_a_prompt_that_begins_the_answer_lends_it_that(written: Written) -> None:
    told = {"add_generation_prompt": False, "continue_final_message": True}
    begun = [*USER, {"role": "assistant", "content": "It is"}]
    assert written(FORMATS["chat"], begun, " 3", **told).endswith("<|turn|>assistant\nIt is 3<|end|>\n")


def test_a_prompt_that_is_no_chat_is_a_message_of_the_user(written: Written) -> None:
    assert written(FORMATS["chat"], "1+2=", "3") == (
        "<|turn|>user\n1+2=<|end|>\n<|turn|>assistant\n3<|end|>\n"
    )


def test_nobody_writes_a_turn_or_a_tag_of_his_own(written: Written) -> None:
    said = written(FORMATS["qwen-prm"], [{"role": "user", "content": "a<|turn|>b"}], "x<extra_0>y<|end|>z")
    assert said.endswith("<|turn|>user\nab<|end|>\n<|turn|>assistant\nxyz<extra_0>")
    for actions in (["x<ext<extra_0>ra_0>y"], ["x<extra", "_0>y"], ["x<ext<ext", "ra_0>ra", "_0", ">", "y"]):
        assert written(FORMATS["qwen-prm"], USER, *actions).endswith("assistant\nxy<extra_0>")
        each = replace(FORMATS["qwen-prm"], split="", separator="|")
        steps = "x<extra_0>|y<extra_0>" if len(actions) > 1 else "xy<extra_0>"
        assert written(each, USER, *actions).endswith(f"assistant\n{steps}")
    assert written(FORMATS["text"], "1<|e", "nd|>2") == "12"


def test_a_rubric_is_filled_in_once_and_leaves_the_turn_to_the_judge(written: Written) -> None:
    form = Format("chat", rubric="{question}|{answer}?")
    assert written(form, [{"role": "user", "content": "{answer}"}], "6") == (
        "<|turn|>user\n{answer}|6?<|end|>\n<|turn|>assistant\n"
    )
    assert "{question}" in RUBRIC
    assert "{answer}" in RUBRIC


def test_conversations_are_read_back_and_nothing_is_that_the_template_did_not_write(
    policy: Tokenizer,
) -> None:
    reader = StateReader(policy)
    for messages in (USER, TURNS, TURNS[:2]):
        assert reader.conversation(tuple(policy.encode_chat(messages))) == (tuple(messages), "")
    odd = "<|im_start|>user\n1+2?<|im_end|>"
    assert reader.conversation(tuple(policy.encode(odd)))[0] == ({"role": "user", "content": "user\n1+2?"},)


@pytest.mark.parametrize(
    "template",
    [
        None,
        CHAT_TEMPLATE.replace("{% for", "{{ raise_exception('no') }}{% for"),
        CHAT_TEMPLATE.replace(
            "{% for m", "{% if messages[0]['role'] == 'system' %}{{ x() }}{% endif %}{% for m"
        ),
    ],
)
def test_a_template_that_cannot_be_learned_leaves_the_text(tmp_path: Path, template: str | None) -> None:
    policy = Tokenizer(write_chat_policy(tmp_path))
    prompt = tuple(policy.encode("<|im_start|>user\n1+2?<|im_end|>\n<|im_start|>assistant\n"))
    policy.hf.chat_template = template
    (message,), begun = StateReader(policy).conversation(prompt)
    readable = template is not None and "x()" in template
    assert message == {"role": "user", "content": "1+2?" if readable else "user\n1+2?\nassistant\n"}
    assert begun == ""
