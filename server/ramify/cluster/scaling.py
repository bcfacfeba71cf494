"""The number of replicas that there are to be, by the tokens that running searches have reserved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

RESERVED = "reserved_tokens"
"""Name under which a replica tells Ray Serve of its reserved tokens."""


def wanted(reserved: Iterable[float], tokens: int | None) -> int:
    """Return how many replicas carry what is reserved if each carries `tokens` (`None`: all of it); at least one."""
    return 1 if tokens is None else max(1, math.ceil(sum(reserved) / tokens))


class ReservedTokens:
    """Ray Serve's autoscaling policy; the limits and delays are Serve's."""

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        told: Mapping[Any, float] = (context.aggregated_metrics or {}).get(RESERVED, {})
        if not told:  # nobody has told anything yet
            return context.target_num_replicas, {}
        return wanted(told.values(), self.tokens), {}
