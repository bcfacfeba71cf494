"""The policy's tokenizer: prompts in, text out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

from ramify.engines.decoding import TokenText
from ramify.engines.errors import BadModel
from ramify.engines.stops import stop_tokens
from ramify.prompts import chat_tokens, eos_ids, prompt_tokens, text_of

TEMPLATE_SWITCHES = {"add_generation_prompt", "continue_final_message"}
"""What a request may say of a chat template beside the template's own variables."""


class Tokenizer:
    """A Hugging Face tokenizer read from a model's directory.

    Loading goes through the whole vocabulary once (0.3 s at 150,000 tokens)."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._hf: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except Exception as error:
            raise BadModel(f"{path} holds no tokenizer that transformers can read: {error}") from error
        self.eos_ids = eos_ids(path, self._hf)
        self.a_token = self._anchor()
        """Some ordinary token."""
        self.text = TokenText(self.decode, len(self._hf), self.a_token)
        self._not_variables = not_variables()
        self.stop_tokens = lru_cache(256)(lambda stops: stop_tokens(self.text, stops))
        """Stop tokens that stand for a tuple of stop strings; `None` where text must be matched."""

    def _anchor(self) -> int:
        """A token with a visible text, in front of which other tokens are decoded to learn theirs."""
        plain = [t for t in self._hf("a 1", add_special_tokens=False).input_ids if self.decode([t]).strip()]
        if plain:
            return int(plain[-1])
        special = set(self._hf.all_special_ids)
        return next((t for t in range(len(self._hf)) if t not in special and self.decode([t]).strip()), 0)

    def encode(self, text: str) -> list[int]:
        """A prompt's token ids, the model's own leading special tokens included."""
        return prompt_tokens(self._hf, text)

    def encode_continuation(self, text: str) -> list[int]:
        """Token ids of text that follows a prompt: no special tokens are added."""
        return list(self._hf(text, add_special_tokens=False).input_ids)

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """A conversation through the chat template, ready for the model's turn unless `template` says otherwise.

        template: variables of the template (`enable_thinking`), `add_generation_prompt`, `continue_final_message`.
        Raises `ValueError` without a chat template, for a name that is no variable of one, and if it refuses."""
        told = dict(template or {})
        if foreign := sorted(told.keys() & self._not_variables):
            raise ValueError(f"{foreign[0]!r} is no variable of a chat template")
        return chat_tokens(self._hf, messages, **told)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids; special tokens add none, nothing is cleaned up."""
        return text_of(self._hf, token_ids)

    def spell(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The text that `tokens` add to `prefix`, and its length in characters once each token is in."""
        return self.text.spell(prefix, tokens)

    def same_as(self, other: Tokenizer) -> bool:
        """Whether both give every token the same id and the same role."""
        return bool(
            self._hf.get_vocab() == other._hf.get_vocab()
            and self._hf.all_special_ids == other._hf.all_special_ids
        )


def not_variables() -> Set[str]:
    """Names that would change how a chat template is run, not what it says."""
    from transformers import PreTrainedTokenizerBase

    parameters = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    return parameters.keys() - TEMPLATE_SWITCHES
