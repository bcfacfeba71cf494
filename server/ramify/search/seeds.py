"""Random seeds, derived and never drawn: the same place in the same search always gets the same one.

An engine that is given seed + index hands neighbours each other's random streams; a hash does not.
"""

from __future__ import annotations

from hashlib import blake2b


def derive(seed: int, *place: int | str) -> int:
    """A 63-bit seed for one place of a search: a hash of the search's seed and whatever names the place."""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
