"""The durable log of searched trees: what the server acknowledges, people browse and the trainer learns from.

**What it promises.** `append` returns after the tree is on disk, so an acknowledged search survives `kill
-9`; there is nothing to repair on the next open. Every body carries the sha256 of its JSON and is checked
on every read: a row that is not what was written reaches a consumer as a `corrupt` record, and
stops nobody. `seq` rises in the order in which commits become visible, trees and later verdicts sharing
it, so a reader that remembers one number misses nothing. A number once committed is never used again, not
even after deletion.

**Two stores, one SQL.** SQLAlchemy Core, so that the statements are the same; `engine` holds all that
differs. SQLite (the default: one file, WAL, synchronous=FULL) has one writing connection and several that
cannot write. PostgreSQL is for several servers on one log, and for those who have it anyway.

**Where `seq` comes from** (2026-11-22). A sequence hands numbers out before commits, so a slow transaction
appears behind a reader's cursor and is never read: seen on PostgreSQL. So `seq` comes from a one-row table,
`counter`, which every write transaction locks first and holds to its commit. design.md §6 says advisory
lock; a row lock orders commits just as well, leaves no gaps on rollback, needs no magic number, and is the
same code on SQLite, where BEGIN IMMEDIATE does it. It also makes each read-then-write here (claims, leases,
cursors) free of races, on both stores. The cost, one write transaction at a time, is what group commit pays
for: see `writer`.

**Why a body and columns.** The body is the tree as `search.codec` writes it, whole, compressed: what is
trained on is what was searched. The columns only repeat some of it for lists and filters, and `verify`
proves that they agree.

**One server a file** (2026-11-22). A second writer on one SQLite file is refused with `StoreLocked`, by a
lock that the kernel drops with its holder. SQLite itself would allow it, but a server that starts also
releases the idempotency claims of dead processes and loads the active release: with two servers on a file
both would be wrong in silence. Reading (`ramify trees`, `read_only=True`) goes on beside the server.

**Forgetting.** `delete` removes a tree, the verdicts on it and the kept response. `expire` removes old
trees, but only what every registered consumer has read. Migrations are append-only and run on open, in one
transaction.

    log = await TreeLog.open("sqlite:///data/ramify.db")
    seq = await log.append(tree, key_id="alice")
    async for record in log.read(after=0): ...
    await log.close()
"""

from ramify.treelog.errors import (
    BadCursor,
    BadEntry,
    BadUrl,
    CorruptTree,
    DuplicateTree,
    LeaseHeld,
    LogClosed,
    LogDeadline,
    LogError,
    LogFull,
    ReadOnlyLog,
    SchemaMismatch,
    StaleVersion,
    StoreError,
    StoreLocked,
    UnknownRelease,
    UnknownTree,
)
from ramify.treelog.export import export_ndjson, export_parquet
from ramify.treelog.log import TreeLog
from ramify.treelog.records import (
    Activation,
    BadRow,
    Claim,
    Conflict,
    Consumer,
    CorruptRow,
    Entry,
    ExpiryCounts,
    Feedback,
    Filters,
    LogSize,
    New,
    Record,
    Release,
    Replay,
    Response,
    Running,
    Summary,
    VerifyReport,
)
from ramify.treelog.rows import json_line, tree_json
from ramify.treelog.trees import EncodedTree

__all__ = [
    "Activation",
    "BadCursor",
    "BadEntry",
    "BadRow",
    "BadUrl",
    "Claim",
    "Conflict",
    "Consumer",
    "CorruptRow",
    "CorruptTree",
    "DuplicateTree",
    "EncodedTree",
    "Entry",
    "ExpiryCounts",
    "Feedback",
    "Filters",
    "LeaseHeld",
    "LogClosed",
    "LogDeadline",
    "LogError",
    "LogFull",
    "LogSize",
    "New",
    "ReadOnlyLog",
    "Record",
    "Release",
    "Replay",
    "Response",
    "Running",
    "SchemaMismatch",
    "StaleVersion",
    "StoreError",
    "StoreLocked",
    "Summary",
    "TreeLog",
    "UnknownRelease",
    "UnknownTree",
    "VerifyReport",
    "export_ndjson",
    "export_parquet",
    "json_line",
    "tree_json",
]
