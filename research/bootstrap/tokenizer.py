"""The demo's word-level tokenizer: every number from 0 to 199 and every operator is one token.

Each token stands for an exact text, so decoding is plain concatenation and any text of the task survives a round
trip. A number has two tokens: ``24`` at the start of a line and `` 24`` elsewhere. Unknown words become ``<unk>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ramify.rewards.countdown import MAX_RESULT

__all__ = [
    "BOS",
    "EOS",
    "EQUALS",
    "NEWLINE",
    "OPERATORS",
    "PAD",
    "TO",
    "VOCABULARY",
    "build_tokenizer",
    "decode",
    "first_number",
    "later_number",
    "word_tokenizer",
]

N = TypeVar("N", int, NDArray[np.int64])

_SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
_WORDS = ["\n", " to", " =", " +", " -", " *", " /"]
_NUMBERS = range(MAX_RESULT + 1)

VOCABULARY: list[str] = [*_SPECIALS, *_WORDS, *(str(n) for n in _NUMBERS), *(f" {n}" for n in _NUMBERS)]
"""The text of each token id."""

PAD, BOS, EOS = 0, 1, 2
NEWLINE, TO, EQUALS = (VOCABULARY.index(word) for word in ("\n", " to", " ="))
OPERATORS = {op: VOCABULARY.index(f" {op}") for op in "+-*/"}

_CHAT_TEMPLATE = (
    "{{- bos_token }}{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{{- users[-1]['content'] }}{%- if not users[-1]['content'].endswith('\\n') %}{{- '\\n' }}{%- endif %}"
)
"""The last user message, with the newline that ends a prompt if it lacks one."""


def first_number(n: N) -> N:
    """Return the token of a number at the start of a line."""
    return n + len(_SPECIALS) + len(_WORDS)


def later_number(n: N) -> N:
    """Return the token of a number elsewhere in a line."""
    return n + len(_SPECIALS) + len(_WORDS) + len(_NUMBERS)


def decode(tokens: Sequence[int]) -> str:
    """Return the text of token ids, special tokens left out."""
    return "".join(VOCABULARY[token] for token in tokens if token >= len(_SPECIALS))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the demo's tokenizer as ``transformers`` and vLLM load it."""
    return word_tokenizer(VOCABULARY, 128)


def word_tokenizer(vocabulary: Sequence[str], longest: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, each with the blank before it, and newlines; encoding a prompt puts ``<s>`` in
    front. ``vocabulary`` begins with the four special tokens; ``longest`` is the longest text in tokens."""
    words = {text: i for i, text in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[^ \n]+|\n"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",  # noqa: S106
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        clean_up_tokenization_spaces=False,
        padding_side="right",
        chat_template=_CHAT_TEMPLATE,
        model_max_length=longest,
    )
