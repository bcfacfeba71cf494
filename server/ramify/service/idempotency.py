"""One search for one Idempotency-Key, scoped to the API key.

The key is claimed before the search is admitted. Only an answer (200) of a search that ran to its own end is kept for
replay, in the transaction that logs the tree. If a search was refused, failed, was cancelled or lost its client, the
key is free again, so that trying again searches again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ramify.search.tree import Tree
from ramify.service import search_view
from ramify.service.errors import ServiceError
from ramify.treelog import KeptAnswer, TreeLog, kept_answer

logger = logging.getLogger(__name__)
Running = TypeVar("Running")
ABANDON_SECONDS = 1.0
"""Seconds that freeing a key may hold up an answer. What failed is often the log, and then this fails too."""
CLAIM_SECONDS = 60
"""Seconds that a claim outlives its search's deadline, in which the tree is logged."""
RETRY_AFTER = 2
"""Seconds after which asking again for the answer of a running search makes sense."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """An Idempotency-Key and the request that it stands for."""

    key: str
    body_hash: str
    """Hash of the request's body; another body under the same key is refused."""
    render: Callable[[Tree], bytes] | None = None
    """Writes a search's answer, as it will be replayed; `None` for a batch, which keeps the ids of its trees."""

    async def abandon(self, log: TreeLog, key_id: str, search_id: str) -> None:
        """Free the key again. If the log fails or is late, that goes on by itself."""
        freeing = log.free(key_id, self.key, search_id)
        done, _ = await asyncio.wait((freeing,), timeout=ABANDON_SECONDS)
        if not done:
            logger.warning("the Idempotency-Key of search %s is freed once the log takes writes", search_id)


@dataclass(frozen=True, slots=True)
class ReplayedAnswer:
    """The answer that an earlier request with this key got."""

    search_id: str
    body: bytes


async def once(
    log: TreeLog,
    key_id: str,
    idempotency: IdempotencyKey | None,
    search_id: str,
    seconds: float,
    start: Callable[[], Awaitable[Running]],
) -> Running | ReplayedAnswer:
    """Start a search, or return the answer that is kept under its key. The key is claimed first, for `seconds`, and
    freed again if the search never starts. Raises `ServiceError` if another search has it."""
    if idempotency is None:
        return await start()
    try:
        claimed = await log.claim(
            key_id, idempotency.key, idempotency.body_hash, search_id, seconds=seconds + CLAIM_SECONDS
        )
        if claimed.state == "new":
            return await start()
    except BaseException:  # also if the client left while the claim was being written
        await asyncio.shield(idempotency.abandon(log, key_id, search_id))
        raise
    if claimed.state == "answered":
        return ReplayedAnswer(claimed.search_id, claimed.body)
    if claimed.state == "running":
        raise ServiceError(
            "conflict",
            f"the search of this Idempotency-Key, {claimed.search_id}, is running",
            retry_after=RETRY_AFTER,
        )
    raise ServiceError(
        "idempotency_key_reused",
        "this Idempotency-Key was used with another body",
        param="Idempotency-Key",
    )


def kept(idempotency: IdempotencyKey | None, tree: Tree, key_id: str) -> KeptAnswer | None:
    """The answer to keep with the tree; `None` if there is no key, or no answer of a search that ran to its end, be it
    that safety scorers left none."""
    if idempotency is None or idempotency.render is None:
        return None
    answered = tree.answer is not None or tree.stop_reason == "pruned"
    if not answered or tree.status not in ("complete", "deadline"):
        return None
    return kept_answer(key_id, idempotency.key, search_view.search_id(tree.id), idempotency.render(tree))
