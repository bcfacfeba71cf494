"""One search for one Idempotency-Key, scoped to the API key.

The key is claimed before the search is admitted. Only an answer (200) of a search that ran to its own end is kept for
replay, in the transaction that logs the tree; where a search was refused, failed, was cancelled or lost its client,
the key is free again, so that trying again searches again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramify.search.tree import Tree
from ramify.service.errors import KeyTaken
from ramify.treelog import KeptAnswer, TreeLog

RETRY_AFTER = 2
"""Seconds after which asking again for the answer of a running search makes sense."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What an Idempotency-Key stands for."""

    key: str
    body_hash: str
    """Of the request's body: another one under the same key is refused."""
    render: Callable[[Tree], bytes]
    """The answer's bytes, as they will be replayed."""

    async def abandon(self, log: TreeLog, key_id: str, search_id: str) -> None:
        """Free the key again."""
        await log.abandon(key_id, self.key, search_id)


@dataclass(frozen=True, slots=True)
class ReplayedAnswer:
    """The answer that an earlier request with this key got."""

    search_id: str
    body: bytes


async def claim(
    log: TreeLog, key_id: str, once: IdempotencyKey, search_id: str, seconds: float
) -> ReplayedAnswer | None:
    """The kept answer, or `None`: the search is ours to run. Raises `KeyTaken`."""
    claimed = await log.claim(key_id, once.key, once.body_hash, search_id, seconds=seconds + 60)
    if claimed.state == "answered":
        return ReplayedAnswer(claimed.search_id, claimed.body)
    if claimed.state == "running":
        raise KeyTaken(
            "conflict",
            f"the search of this Idempotency-Key, {claimed.search_id}, is running",
            retry_after=RETRY_AFTER,
        )
    if claimed.state == "other_body":
        raise KeyTaken(
            "idempotency_key_reused",
            "this Idempotency-Key was used with another body",
            param="Idempotency-Key",
        )
    return None


def kept(once: IdempotencyKey | None, tree: Tree, key_id: str) -> KeptAnswer | None:
    """The answer to keep with the tree, if it is one to keep."""
    if once is None or tree.answer is None or tree.status not in ("complete", "deadline"):
        return None
    search_id = "srch_" + tree.id.removeprefix("tree_")
    return KeptAnswer(key_id, once.key, search_id, once.render(tree))
