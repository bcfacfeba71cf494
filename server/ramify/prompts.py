"""How a model reads a prompt and ends an answer, for the server that serves it and the trainer that measures it.

The functions take a Hugging Face tokenizer, which the caller loads: this module needs neither transformers nor torch.
Two versions of them would drift, and a gate would then judge another prompt than the one that is served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["chat_tokens", "eos_ids", "prompt_tokens", "text_of"]


def prompt_tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a prompt, the model's own leading special tokens included."""
    return list(tokenizer(text).input_ids)


def chat_tokens(tokenizer: Any, messages: Sequence[Mapping[str, str]], **template: Any) -> list[int]:
    """Token ids of a conversation through the chat template, ready for the model's turn unless told otherwise.

    template: the template's variables (`enable_thinking`), `add_generation_prompt`, `continue_final_message`.
    Raises `ValueError` if there is no chat template or if it refuses the messages."""
    if not tokenizer.chat_template:
        raise ValueError("the model's tokenizer has no chat template: send `prompt` in place of `messages`")
    told = {"add_generation_prompt": True, **template}
    try:
        # transformers 5 returns a mapping, whose elements are strings, unless told otherwise
        return list(
            tokenizer.apply_chat_template(
                [dict(m) for m in messages], tokenize=True, return_dict=False, **told
            )
        )
    except Exception as error:  # templates are programs: they raise what they like
        raise ValueError(f"the chat template refuses these messages: {error}") from error


def text_of(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Text of token ids; special tokens add none, nothing is cleaned up."""
    text: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def eos_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that end an answer: the tokenizer's, and those of the model directory's generation_config.json,
    or of its config.json if it has no generation_config.json."""
    named = [getattr(tokenizer, "eos_token_id", None)]
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            named.append(json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id"))
            break
    found: set[int] = set()
    for value in named:
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)
