"""The text that sampled tokens add, token by token.

Most tokens always add the same text, whatever stands before them: their text is looked up. A token that holds only
part of a character (byte-level BPE spreads one character over several tokens) has no text of its own: samples that
hold one, or that continue one, are decoded step by step, and an unfinished character counts to the token that
finishes it. So the texts of consecutive samples, joined, are the text of the joined tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate

BROKEN = "\ufffd"
"""What an incomplete character decodes to."""
CONTEXT = 32
"""Tokens of the prefix that a step-by-step decode looks back on."""

Decode = Callable[[Sequence[int]], str]


class TokenText:
    """Texts of tokens in continuation of other text.

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
        """What one token decodes to by itself, incomplete characters as U+FFFD."""
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
