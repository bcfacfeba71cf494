"""Stop strings told as stop tokens, where that is the same thing.

An engine that is given stop strings must decode every token to look for them, and notices them one step late. Where
a stop string can only ever be completed inside a single token, the tokens that hold it are an exact and free
replacement. That is decidable: it holds when no token ends with a proper beginning of the string. A one-character
delimiter such as a newline always qualifies.
"""

from __future__ import annotations

from collections.abc import Sequence

from ramify.engines.decoding import TokenText

MOST = 64
"""More stop tokens than this cost the engine more than looking at text does."""


def stop_tokens(text: TokenText, stops: Sequence[str], most: int = MOST) -> tuple[int, ...] | None:
    """Token ids that end a sample exactly where one of the `stops` is completed; `None` where text must be matched."""
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
