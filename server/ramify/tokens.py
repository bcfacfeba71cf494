"""Text and tokens: how a model reads a prompt, ends an answer and spells what it writes.

The server, which serves a model, and the trainer, which measures it, both use this module: two versions would drift,
and a gate would then judge another prompt than the one that is served. The functions take a Hugging Face tokenizer
that the caller loads, so this module needs neither transformers nor torch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

BROKEN = "\ufffd"
"""The text of an incomplete character."""
CONTEXT = 32
"""Tokens of the prefix that a step-by-step decode looks back on."""

Decode = Callable[[Sequence[int]], str]


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
    ids: set[int] = set()
    for value in named:
        ids.update([value] if isinstance(value, int) else value or [])
    return frozenset(ids)


def plain_token(tokenizer: Any) -> int:
    """A token with a visible text, before which `TokenText` decodes other tokens to learn theirs."""

    def visible(token: int) -> bool:
        return bool(text_of(tokenizer, [token]).strip())

    plain = [t for t in tokenizer("a 1", add_special_tokens=False).input_ids if visible(t)]
    if plain:
        return int(plain[-1])
    special = set(tokenizer.all_special_ids)
    return next((t for t in range(len(tokenizer)) if t not in special and visible(t)), 0)


def closing_tokens(tokenizer: Any, end_ids: Iterable[int]) -> frozenset[int]:
    """Return the tokens that only close what was written: `end_ids`, and those whose text is nothing but whitespace.

    Such a token says nothing that was not known, so a value head on the policy judges a sequence that ends in one at
    the state before it. Goes through the whole vocabulary once, as `TokenText` does."""
    anchor = plain_token(tokenizer)
    head = text_of(tokenizer, [anchor])

    def blank(token: int) -> bool:
        text = text_of(tokenizer, [anchor, token])
        return text.startswith(head) and text[len(head) :].isspace()

    return frozenset(end_ids) | frozenset(filter(blank, range(len(tokenizer))))


class TokenText:
    """The text that sampled tokens add, token by token.

    Most tokens always add the same text, whatever stands before them: their text is looked up. A token that holds only
    part of a character (byte-level BPE spreads one character over several tokens) has no text of its own: samples that
    hold such a token, or continue one, are decoded step by step, and an unfinished character counts to the token that
    finishes it. So the texts of consecutive samples, joined, are the text of the joined tokens.

    `pieces[t]` is the text that token t adds; tokens whose text depends on their neighbours are not in it.
    `concatenative` says whether decoding is joining pieces at all: it was tried on random sequences.
    """

    def __init__(self, decode: Decode, size: int, anchor: int, *, trials: int = 64) -> None:
        self._decode = decode
        self.size = size
        head = decode([anchor])
        texts = ((token, decode([anchor, token])) for token in range(size))
        self.pieces: dict[int, str] = {
            token: text[len(head) :] for token, text in texts if text.startswith(head) and BROKEN not in text
        }
        self.concatenative = self._is_concatenative(anchor, head, trials)

    def alone(self, token: int) -> str:
        """Return the text of one token by itself, incomplete characters as U+FFFD."""
        return self._decode([token])

    def _is_concatenative(self, anchor: int, head: str, trials: int) -> bool:
        clean = list(self.pieces)
        rng = random.Random(0)
        samples = [rng.choices(clean, k=16) for _ in range(trials)] if clean else []
        return bool(samples) and all(
            self._decode([anchor, *sample]) == head + "".join(self.pieces[t] for t in sample)
            for sample in samples
        )

    def spell(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The text that `tokens` add to `prefix`, and its length once each token is in (rising, one a token)."""
        pieces = self.pieces
        if self.concatenative and (not prefix or prefix[-1] in pieces):
            if len(tokens) == 1 and tokens[0] in pieces:
                return (piece := pieces[tokens[0]]), (len(piece),)
            parts = [pieces[token] for token in tokens if token in pieces]
            if len(parts) == len(tokens):
                return "".join(parts), tuple(accumulate(map(len, parts)))
        return self._step_by_step(prefix, tokens)

    def _step_by_step(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        seen = list(prefix[-CONTEXT:])
        start = len(self._decode(seen).rstrip(BROKEN)) if seen else 0
        text, ends = "", []
        for token in tokens:
            seen.append(token)
            longer = self._decode(seen).rstrip(BROKEN)[start:]
            if len(longer) > len(text):  # broken bytes can turn back what was whole: text once there stays
                text = longer
            ends.append(len(text))
        return text, tuple(ends)
