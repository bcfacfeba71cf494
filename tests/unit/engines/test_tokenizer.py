"""Chat templates, and stop strings told as stop tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from models import write_tokenizer
from ramify.engines import Tokenizer
from ramify.engines.tokenizer import stop_tokens
from ramify.tokens import TokenText

TEMPLATE = (
    "{% for m in messages %}{{ m['name'] + ' to ' if m['name'] else '' }}{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '= ' if enable_thinking | default(true) else '= 0 ' }}{% endif %}"
)
MESSAGES = [{"role": "user", "content": "3 + 5"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return Tokenizer(folder)


def text(tokenizer: Tokenizer, template: dict[str, Any] | None = None) -> str:
    return tokenizer.decode(tokenizer.encode_chat(MESSAGES, template))


def test_variables_of_the_chat_template_switch_thinking_off(tokenizer: Tokenizer) -> None:
    assert "= 0" not in text(tokenizer)
    assert "= 0" in text(tokenizer, {"enable_thinking": False})


def test_the_generation_prompt_can_be_left_out_and_the_last_message_continued(tokenizer: Tokenizer) -> None:
    assert "=" not in text(tokenizer, {"add_generation_prompt": False})
    assert text(tokenizer, {"add_generation_prompt": False, "continue_final_message": True}).endswith("5")


@pytest.mark.parametrize(
    "name", ["chat_template", "tokenize", "return_dict", "padding", "max_length", "tools"]
)
def test_what_is_no_variable_of_a_template_is_refused_by_name(tokenizer: Tokenizer, name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is no variable"):
        tokenizer.encode_chat(MESSAGES, {name: True})


def token_text(*pieces: str) -> TokenText:
    def decode(tokens: Sequence[int]) -> str:
        return "".join(pieces[t] for t in tokens)

    return TokenText(decode, len(pieces), 0)


def test_a_newline_stops_at_every_token_that_holds_one() -> None:
    assert stop_tokens(token_text("a", "\n", ".\n", "b", "\n\n", "\n c"), ["\n"]) == (1, 2, 4, 5)


def test_several_delimiters_stop_at_the_tokens_of_each() -> None:
    assert stop_tokens(token_text("a", "\n", ";"), ["\n", ";"]) == (1, 2)


def test_a_string_that_tokens_could_spell_together_is_left_to_text_matching() -> None:
    assert stop_tokens(token_text("a", "\n", "\n\n"), ["\n\n"]) is None
    assert stop_tokens(token_text("a", "x<", "/s>"), ["</s>"]) is None


def test_a_long_string_that_only_one_token_can_hold_is_exact() -> None:
    assert stop_tokens(token_text("a", "</s>", "s>", " b"), ["</s>"]) == (1,)


def test_too_many_tokens_are_left_to_text_matching() -> None:
    pieces = ["a", *(f"{i}\n" for i in range(70))]
    assert stop_tokens(token_text(*pieces), ["\n"]) is None
    assert len(stop_tokens(token_text(*pieces), ["\n"], most=70) or ()) == 70


def test_characters_beyond_ascii_are_left_to_text_matching() -> None:
    assert stop_tokens(token_text("a", "。"), ["。"]) is None


def test_no_stop_strings_need_no_stop_tokens() -> None:
    assert stop_tokens(token_text("a", "\n"), []) == ()


def test_a_tokenizer_whose_texts_do_not_join_is_left_to_text_matching() -> None:
    def decode(tokens: Sequence[int]) -> str:  # a space between words, none before a full stop
        return " ".join("ab."[t] for t in tokens).replace(" .", ".").replace("a b", "ab")

    assert stop_tokens(TokenText(decode, 3, 0), ["."]) is None
