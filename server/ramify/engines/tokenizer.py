"""The policy's tokenizer: prompts in, text out, stop strings as stop tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ramify.engines.errors import EngineStartFailed
from ramify.tokens import TokenText, chat_tokens, closing_tokens, eos_ids, plain_token, prompt_tokens, text_of

TEMPLATE_SWITCHES = {"add_generation_prompt", "continue_final_message"}
"""Arguments of a chat template, beside its own variables, that a request may set."""
MOST_STOP_TOKENS = 64
"""More stop tokens than this cost the engine more than looking at text does."""


class Tokenizer:
    """A Hugging Face tokenizer read from a model's directory.

    Loading goes through the whole vocabulary once (0.3 s at 150,000 tokens)."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.hf: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            """As transformers read it."""
        except Exception as error:
            raise EngineStartFailed(
                f"{path} holds no tokenizer that transformers can read: {error}"
            ) from error
        self.eos_ids = eos_ids(path, self.hf)
        self.a_token = plain_token(self.hf)
        """Some ordinary token."""
        self.text = TokenText(self.decode, len(self.hf), self.a_token)
        self._not_variables = not_variables()
        self.stop_tokens = lru_cache(256)(lambda stops: stop_tokens(self.text, stops))
        """Stop tokens that stand for a tuple of stop strings; `None` if text must be matched."""

    @cached_property
    def closing(self) -> frozenset[int]:
        """Tokens that only close what was written (`tokens.closing_tokens`)."""
        return closing_tokens(self.hf, self.eos_ids)

    def encode(self, text: str) -> list[int]:
        """A prompt's token ids, the model's own leading special tokens included."""
        return prompt_tokens(self.hf, text)

    def encode_continuation(self, text: str) -> list[int]:
        """Token ids of text that follows a prompt: no special tokens are added."""
        return list(self.hf(text, add_special_tokens=False).input_ids)

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], template: Mapping[str, Any] | None = None
    ) -> list[int]:
        """A conversation through the chat template, ready for the model's turn unless `template` says otherwise.

        template: variables of the template (`enable_thinking`), `add_generation_prompt`, `continue_final_message`.
        Raises `ValueError` without a chat template, for a name that is no variable of one, and if it refuses."""
        told = dict(template or {})
        if foreign := sorted(told.keys() & self._not_variables):
            raise ValueError(f"{foreign[0]!r} is no variable of a chat template")
        return chat_tokens(self.hf, messages, **told)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids; special tokens add none, nothing is cleaned up."""
        return text_of(self.hf, token_ids)

    def spell(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The text that `tokens` add to `prefix`, and its length in characters once each token is in."""
        return self.text.spell(prefix, tokens)

    def same_as(self, other: Tokenizer) -> bool:
        """Return whether both give every token the same id and the same role."""
        return bool(
            self.hf.get_vocab() == other.hf.get_vocab()
            and self.hf.all_special_ids == other.hf.all_special_ids
        )


def not_variables() -> Set[str]:
    """Names that would change how a chat template is run, not what it says."""
    from transformers import PreTrainedTokenizerBase

    parameters = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    return parameters.keys() - TEMPLATE_SWITCHES


def stop_tokens(
    text: TokenText, stops: Sequence[str], most: int = MOST_STOP_TOKENS
) -> tuple[int, ...] | None:
    """Return the token ids that end a sample exactly at the token that completes one of `stops`, or None if the
    engine must match text.

    An engine that is given stop strings must decode every token to look for them, and notices them one step late. If
    a stop string can only ever be completed inside a single token, the tokens that hold it replace it exactly and for
    free. That is decidable: it holds if no token ends with a proper beginning of the string. A one-character delimiter
    such as a newline always qualifies."""
    if not text.concatenative:
        return None
    found: set[int] = set()
    for stop in stops:
        if not stop.isascii():
            return None  # its bytes may be spread over tokens that have no text of their own
        starts = tuple(stop[:i] for i in range(1, len(stop)))
        for token in range(text.size):
            spelt = text.pieces[token] if token in text.pieces else text.alone(token)
            if stop in spelt:
                found.add(token)
            elif starts and spelt.endswith(starts):
                return None
    return tuple(sorted(found)) if len(found) <= most else None
