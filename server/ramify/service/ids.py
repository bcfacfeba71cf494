"""UUIDv7 (RFC 9562): ids that sort by time. A search and its tree share one."""

from __future__ import annotations

import re
import secrets

SEARCH = "srch_"
TREE = "tree_"
_HEX = re.compile(r"[0-9a-f]{32}")


def uuid7(now: float) -> str:
    """Return 32 hexadecimal digits: 48 bits of milliseconds, then version, variant and 74 random bits."""
    milliseconds = int(now * 1000) & (1 << 48) - 1
    random = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return f"{value:032x}"


def search_id(tree_id: str) -> str:
    """Return the id of the search that made a tree."""
    return SEARCH + tree_id.removeprefix(TREE)


def tree_id(given: str) -> str | None:
    """Return a tree's id, given its own or its search's; `None` if it is neither."""
    for prefix in (SEARCH, TREE):
        if given.startswith(prefix) and _HEX.fullmatch(given[len(prefix) :]):
            return TREE + given[len(prefix) :]
    return None
