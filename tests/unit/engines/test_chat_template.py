from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models import write_tokenizer
from ramify.engines import Tokenizer

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
