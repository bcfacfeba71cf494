"""Read the log from the server's cursor, at least once, and move the cursor only when what was read is trained on.

A pull holds the consumer's lease, so two trainers cannot move one cursor: every change names the version last seen
(If-Match), and the lease keeps the other from registering in between. A record that is no tree is kept in a quarantine
folder, counted, and passed over. A later verdict from a key that may not teach (`train_feedback`) is passed over too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ramify.search.codec import BadTree, tree_from_dict
from ramify.search.tree import Tree
from ramify_client import AsyncClient, Conflict, NotFound
from ramify_client.results import Consumer, LogRecord
from ramify_trainer.errors import LeaseTaken


@dataclass(frozen=True, slots=True)
class Pulled:
    """One record: a tree, or a later verdict on one."""

    seq: int
    tree_id: str
    tree: Tree | None = None
    outcome: float | None = None
    """A later verdict, [0, 1]."""
    node: int | None = None
    """Where the verdict is on: the node that ends the answer; None where it names the answer's text."""
    answer: str | None = None
    source: Literal["human", "verifier"] = "human"
    """Who gave the verdict."""


@dataclass(slots=True)
class Puller:
    """One reader of the log. `open` it first."""

    client: AsyncClient
    name: str
    owner: str
    """Who holds the lease; another owner is kept off while it lasts."""
    quarantine: Path
    lease_seconds: float = 300.0
    consumer: Consumer | None = None
    quarantined: int = field(default=0)
    """Records that were no trees."""
    last_read: int = 0
    """The last `seq` read, of whatever kind; 0 before any."""

    async def open(self) -> Consumer:
        """Register where need be, and take the lease. Raises `LeaseTaken`."""
        try:
            version = (await self.client.consumers.get(self.name)).version
        except NotFound:
            version = None
        return await self._put(version, None)

    @property
    def cursor(self) -> int:
        """The last `seq` that is done with."""
        return self._held().cursor

    async def backlog(self) -> int:
        """Records that wait."""
        found = await self.client.consumers.get(self.name)
        return found.high_water - found.cursor

    async def read(self) -> AsyncIterator[Pulled]:
        """What the log holds beyond the cursor, to its end as it is now."""
        async for record in self.client.trees.read(after=self.cursor):
            self.last_read = record.seq
            pulled = self._pulled(record)
            if pulled is not None:
                yield pulled

    async def renew(self) -> None:
        """Keep the lease. Raises `LeaseTaken`."""
        await self._put(self._held().version, None)

    async def advance(self, cursor: int) -> None:
        """Be done with everything up to `cursor`. Raises `LeaseTaken`."""
        await self._put(self._held().version, cursor)

    async def _put(self, version: int | None, cursor: int | None) -> Consumer:
        try:
            self.consumer = await self.client.consumers.put(
                self.name,
                version=version,
                cursor=cursor,
                owner=self.owner,
                lease_seconds=self.lease_seconds,
            )
        except Conflict as error:
            raise LeaseTaken(
                f"the consumer {self.name!r} is another trainer's ({error.code}); stop that one, wait until its lease "
                "ends, or give this one a name of its own"
            ) from error
        return self.consumer

    def _held(self) -> Consumer:
        if self.consumer is None:
            raise RuntimeError("open the puller first")
        return self.consumer

    def _pulled(self, record: LogRecord) -> Pulled | None:
        try:
            if record.kind == "outcome":
                return _verdict(record)
            if record.tree is None:
                raise BadTree("a tree record without a tree")
            return Pulled(record.seq, record.tree_id, tree_from_dict(record.tree))
        except BadTree as error:
            self._set_aside(record, error)
            return None

    def _set_aside(self, record: LogRecord, error: BadTree) -> None:
        self.quarantined += 1
        self.quarantine.mkdir(parents=True, exist_ok=True)
        kept = {"error": str(error), "record": record.model_dump()}
        path = self.quarantine / f"{record.seq:012d}.json"
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _verdict(record: LogRecord) -> Pulled | None:
    """None where whoever gave it may not feed training; a record that does not say counts as one of those."""
    said = record.model_extra or {}
    node, answer, source = said.get("node"), said.get("answer"), said.get("source", "human")
    if record.outcome is None or not 0 <= record.outcome <= 1:
        raise BadTree(f"a verdict of {record.outcome}, which is outside [0, 1]")
    if source not in ("human", "verifier"):
        raise BadTree(f"a verdict of the source {source!r}")
    if said.get("train") is not True:
        return None
    return Pulled(record.seq, record.tree_id, None, record.outcome, node, answer, source)
