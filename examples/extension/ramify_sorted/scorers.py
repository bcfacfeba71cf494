"""The scorer `ascending`: an answer is promising while its numbers ascend."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ramify.engines import Tokenizer
from ramify.search import Score, Scorer


class Ascending:
    """Judge by the share of neighbours on the last line that are in order."""

    def __init__(self, tokenizer: Tokenizer, value: Scorer | None) -> None:
        """`value` is the value model's scorer, to be asked as well if you like; None without a value model."""
        self._tokenizer = tokenizer

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        """Judge whole sequences, prompt and answer so far; one Score each, in order."""
        return [Score(self._order(self._tokenizer.decode(tokens)), "ascending-1") for tokens in sequences]

    def _order(self, text: str) -> float:
        numbers = [int(word) for word in text.rpartition("\n")[2].split() if word.isdecimal()]
        pairs = list(pairwise(numbers))
        return sum(a <= b for a, b in pairs) / len(pairs) if pairs else 0.5
