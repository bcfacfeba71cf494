"""The durable log of searched trees: what the server acknowledges, people browse and the trainer learns from.

    log = await TreeLog.open("sqlite:///data/ramify.db")
    seq = await log.append(tree, key_id="alice")
    async for record in log.read(after=0): ...
    await log.close()

| module | what it is |
|---|---|
| `errors` | the exception family |
| `records` | the records that go into the log and come out of it |
| `schema` | the tables, and the migrations that make them |
| `store` | SQLite or PostgreSQL: URLs, connections, the lock of the one writing process |
| `rows` | rows to records and back |
| `writer` | group commit, and the counter that every `seq` comes from |
| `idempotency` | one search for one Idempotency-Key |
| `bodies` | where the bodies of trees lie: in their rows or in an object store |
| `trees` | trees and feedback: written, listed, read in order |
| `checkpoints` | running searches as they last were |
| `consumers` | registered readers: cursors and leases |
| `releases` | releases and the history of the active one |
| `upkeep` | expiry and verification |
| `log` | `TreeLog`: an open log, and everything that can be asked of it |
| `export` | NDJSON and Parquet files |

**Promises.** `append` returns after the tree is on disk, so an acknowledged search survives `kill -9`; there
is nothing to repair on the next open. Every body carries the sha256 of its JSON and is checked on every read: a row
that is not what was written reaches a consumer as a `CorruptRow`, and stops nobody. `seq` rises in the order in which
commits become visible, trees and feedback sharing it, so a reader that remembers one number misses nothing. A number
once committed is never used again, not even after deletion.

**Two stores, one SQL.** SQLAlchemy Core, so that the statements are the same; `store` holds all that differs. SQLite
(the default: one file, WAL, synchronous=FULL) has one writing connection and several that cannot write. PostgreSQL is
for several servers on one log, and for those who have it anyway.

**The source of `seq`** (2026-11-22). A sequence hands numbers out before commits, so a slow transaction appears behind
a reader's cursor and is never read: seen on PostgreSQL. So `seq` comes from a one-row table, `counter`, which every
write transaction locks before it writes anything, and holds to its commit. Unlike an advisory lock, a row lock leaves
no gaps on rollback, needs no magic number, and is the same code on SQLite, whose BEGIN IMMEDIATE does it. Taken first,
it also makes each read-then-write here (claims, leases, cursors, feedback) free of races, on both stores. Appends take
it last, since the store itself refuses a tree's second row. The cost, one write transaction at a time, is what group
commit and the short hold pay for: see `writer`.

**A body and columns.** Bodies lie in their rows, or in an object store: see `bodies`. The body is the tree as
`search.codec` writes it, whole, compressed: what is trained on is what was searched. The columns only repeat some of it
for lists and filters, and `upkeep.verify` proves that they agree.

**One server a file** (2026-11-22). A second writer on one SQLite file is refused, by a lock that the kernel drops with
its holder. SQLite itself would allow it, but a server that starts also releases the idempotency claims of dead
processes and loads the active release: with two servers on a file both would be wrong in silence. Reading (`ramify
trees`, `read_only=True`) goes on beside the server.

**Checkpoints** are no trees: nobody reads them but the server, and they have no `seq`. What a dead process leaves of
one becomes a tree like any other, with the status `interrupted`.

**Forgetting.** `delete` removes a tree, the feedback on it and the kept answer. `expire` removes old trees, but only
what every registered consumer has read. Migrations are append-only and run on open, in one transaction.
"""

from ramify.treelog.errors import BadCursor, ConsumerConflict, CorruptTree, LogError, StoreError
from ramify.treelog.export import export_ndjson, export_parquet
from ramify.treelog.idempotency import kept_answer
from ramify.treelog.log import TreeLog
from ramify.treelog.records import (
    Activation,
    ActivationKind,
    Claim,
    Consumer,
    CorruptRow,
    Entry,
    ExpiryCounts,
    Feedback,
    Filters,
    KeptAnswer,
    LogSize,
    Record,
    Release,
    Summary,
    VerifyReport,
)
from ramify.treelog.rows import json_line, tree_json
from ramify.treelog.trees import EncodedTree

__all__ = [
    "Activation",
    "ActivationKind",
    "BadCursor",
    "Claim",
    "Consumer",
    "ConsumerConflict",
    "CorruptRow",
    "CorruptTree",
    "EncodedTree",
    "Entry",
    "ExpiryCounts",
    "Feedback",
    "Filters",
    "KeptAnswer",
    "LogError",
    "LogSize",
    "Record",
    "Release",
    "StoreError",
    "Summary",
    "TreeLog",
    "VerifyReport",
    "export_ndjson",
    "export_parquet",
    "json_line",
    "kept_answer",
    "tree_json",
]
