"""The text that sampled tokens add, token by token.

Most tokens always add the same text, whatever stands before them: their text is looked up. A token that holds only
part of a character (byte-level BPE spreads one character over several tokens) has no text of its own: samples that
hold one, or that continue one, are decoded step by step, and an unfinished character counts to the token that
finishes it. So the texts of consecutive samples, joined, are the text of the joined tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

BROKEN = "\ufffd"
"""What an incomplete character decodes to."""
CONTEXT = 32
"""Tokens of the prefix that a step-by-step decode looks back on."""

Decode = Callable[[Sequence[int]], str]


class TokenText:
    """Texts of tokens in continuation of other text.

    `pieces[t]` is the text that token t adds; `None` where it depends on its neighbours. `concatenative` says
    whether decoding is joining pieces at all: it was tried on random sequences.
    """

    def __init__(self, decode: Decode, size: int, anchor: int, *, trials: int = 64) -> None:
        self._decode = decode
        head = decode([anchor])
        texts = (decode([anchor, token]) for token in range(size))
        self.pieces: list[str | None] = [
            text[len(head) :] if text.startswith(head) and BROKEN not in text else None for text in texts
        ]
        self.concatenative = self._is_concatenative(anchor, head, trials)

    def bare(self, token: int) -> str:
        """What one token alone decodes to, incomplete characters as U+FFFD."""
        return self._decode([token])

    def _is_concatenative(self, anchor: int, head: str, trials: int) -> bool:
        clean = [token for token, piece in enumerate(self.pieces) if piece is not None]
        if not clean:
            return False
        rng = random.Random(0)
        for _ in range(trials):
            tokens = rng.choices(clean, k=16)
            if self._decode([anchor, *tokens]) != head + "".join(self.pieces[t] or "" for t in tokens):
                return False
        return True

    def spell(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The text that `tokens` add to `prefix`, and its length once each token is in (rising, one a token)."""
        pieces = self.pieces
        try:
            if self.concatenative and (not prefix or pieces[prefix[-1]] is not None):
                parts = [pieces[token] for token in tokens]
                ends, length = [], 0
                for part in parts:
                    length += len(part)  # type: ignore[arg-type]  # None: not spelt by lookup
                    ends.append(length)
                return "".join(parts), tuple(ends)  # type: ignore[arg-type]
        except (
            TypeError,
            IndexError,
        ):  # a token without a text of its own, or beyond the tokenizer's vocabulary
            pass
        return self._step_by_step(prefix, tokens)

    def _step_by_step(self, prefix: Sequence[int], tokens: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        seen = list(prefix[-CONTEXT:])
        start = len(self._decode(seen).rstrip(BROKEN)) if seen else 0
        text, ends, longest = "", [], 0
        for token in tokens:
            seen.append(token)
            text = self._decode(seen).rstrip(BROKEN)
            longest = max(longest, len(text) - start)
            ends.append(longest)
        return text[start:] if longest else "", tuple(ends)
