"""The two sources of trees that the reading commands know: a log opened beside the server, or a running server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.cli.terminal import fail, refuse

if TYPE_CHECKING:
    from ramify.settings import Settings
    from ramify.treelog import TreeLog
    from ramify_client import Client
    from ramify_client.results import TreeSummary

AMBIGUOUS = 5
"""Ids that are listed when a prefix fits several trees."""
_SEQ = re.compile(r"[0-9]{1,18}")
_PREFIX = re.compile(r"(?:tree_|srch_)?([0-9a-f]{1,32})")


@contextmanager
def source(
    log: str | None, config: Path | None, server: str | None, api_key: str | None
) -> Iterator[TreeSource]:
    """Open the log that the flags name. Exits with a message if it cannot be read."""
    if server is not None:
        from ramify.cli.http import asking

        if log is not None or config is not None:
            refuse("--server goes without --log and --config: the server has its own log")
        with asking(server, api_key, otherwise="trees list --log FILE") as client:
            yield ServedTrees(client)
        return
    from ramify.treelog import LogError

    try:
        yield LoggedTrees(log_settings(log, config))
    except LogError as error:
        fail(error, *log_advice())


def log_settings(log: str | None, config: Path | None) -> Settings:
    """Read the settings of a log: its URL, how the object stores of its bodies are asked, and which trees it keeps."""
    from ramify.settings import BadSettings, load

    try:
        return load(config, log=log)
    except BadSettings as error:
        refuse(error)


def log_advice() -> tuple[str, ...]:
    return (
        "name the log with --log FILE, such as the one that ramify serve was given",
        "or ask a running server with --server http://127.0.0.1:8000",
    )


@asynccontextmanager
async def read_only_log(settings: Settings) -> AsyncIterator[TreeLog]:
    """Open the log read only: a server may be writing it."""
    from ramify.treelog import TreeLog

    async with await TreeLog.open(settings.log, read_only=True, objects=settings.objects) as log:
        yield log


class LoggedTrees:
    """The log's own file or database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def newest(self, limit: int, before: int | None = None, **filters: Any) -> list[TreeSummary]:
        """List trees, newest first; filters are those of `GET /v1/trees`."""
        from ramify.api import wire_log
        from ramify.treelog import Filters
        from ramify_client.results import TreeSummary

        if (start := filters.pop("id", None)) is not None:
            filters["tree_id"] = start

        async def read() -> list[TreeSummary]:
            async with read_only_log(self._settings) as log:
                rows = await log.list(before=before, limit=limit, filters=Filters(**filters))
            return [TreeSummary.model_validate(wire_log.sent(wire_log.TreeSummary, row)) for row in rows]

        return asyncio.run(read())

    def get(self, tree_id: str) -> tuple[dict[str, Any], float | None]:
        """Return the tree's JSON, and the latest verdict on its chosen answer, in [0, 1]; 1 is right."""

        async def read() -> tuple[dict[str, Any], float | None]:
            async with read_only_log(self._settings) as log:
                entry = await log.get(tree_id)
            return (entry.document(), entry.outcome) if entry else _unknown(tree_id)

        return asyncio.run(read())


class ServedTrees:
    """A running server's log, as far as the API key may see it, read like `LoggedTrees`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def newest(self, limit: int, before: int | None = None, **filters: Any) -> list[TreeSummary]:
        return self._client.trees.list(before=before, limit=limit, **filters).data

    def get(self, tree_id: str) -> tuple[dict[str, Any], float | None]:
        logged = self._client.trees.get(tree_id)
        return dict[str, Any](logged.tree), logged.outcome


TreeSource = LoggedTrees | ServedTrees


def resolve(trees: TreeSource, name: str) -> str:
    """Return the id of the tree that `name` means: `last`, a seq, or the start of its id or of its search's.

    Exits with a message if there is none, or more than one.
    """
    if name == "last":
        rows = trees.newest(limit=1)
        return rows[0].id if rows else fail("the log has no trees yet")
    if _SEQ.fullmatch(name):
        rows = trees.newest(limit=1, before=int(name) + 1)
        return rows[0].id if rows and rows[0].seq == int(name) else _unknown(name)
    if not (start := _PREFIX.fullmatch(name)):
        refuse(
            f"{name!r} names no tree",
            "give its seq, `last`, or how its id starts: ramify trees list has them",
        )
    rows = trees.newest(limit=AMBIGUOUS, id=f"tree_{start[1]}")
    if len(rows) > 1:
        fail(f"{name!r} starts several ids", *(f"{row.seq:>6}  {row.id}" for row in rows))
    return rows[0].id if rows else _unknown(name)


def _unknown(name: str) -> Any:
    fail(f"no tree {name!r} in the log", "see what there is:  ramify trees list")
