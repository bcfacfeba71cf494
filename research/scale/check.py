"""Real writers and real looks on a PostgreSQL of its own, beside simulated ones.

One writer and one replica that looks give the service times; what several do is then predicted, and measured. All
run in one process on one core: the check shows how the lock passes from one to the next and how batches grow, which is
what bounds a fleet. It cannot show replicas that search at the same time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import simpy

from ramify.fleet import FleetStore, Replica
from ramify.treelog import EncodedTree, TreeLog
from research.scale.measure import encoded_trees, join_many, spent
from research.scale.parameters import Parameters, defaults
from research.scale.replicas import Rows
from research.scale.stations import Log, Work, Writer
from research.scale.sweep import Row
from tests.fixtures_postgres import PostgresServer, a_postgres, find_binaries

EACH = 12
"""Trees that a client appends, one after another, and looks that a replica takes."""
CALIBRATING = 16
"""Clients of the one writer from which the cost of a row is told."""
FLEETS = ((1, 1), (1, CALIBRATING), (2, 4), (4, 4), (8, 4), (16, 1))
"""Writers, and clients of each."""
LOOKERS = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class Appended:
    """Clients have appended trees, each one after another."""

    trees: int
    commits: int
    seconds: float
    """Processor seconds, the database's included: on one core nothing of it overlaps, and other work is not in it."""

    @property
    def transaction(self) -> float:
        """Seconds a transaction."""
        return self.seconds / self.commits

    @property
    def batch(self) -> float:
        return self.trees / self.commits


def check() -> list[Row]:
    """Return measured and predicted figures, a row for each fleet."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("no PostgreSQL: initdb is neither on PATH nor in /usr/lib/postgresql/*/bin")
    with a_postgres(binaries) as server:
        real = {fleet: asyncio.run(appended(server, *fleet)) for fleet in FLEETS}
        looked = {number: asyncio.run(looks(server, number)) for number in LOOKERS}
    of = calibrated(real[1, 1], real[1, CALIBRATING], looked[1])
    rows = [_row(f"{w} writers, {c} clients each", real[w, c], simulated(of, w, c)) for w, c in FLEETS]
    return rows + [
        {
            "what": f"{number} replicas that look",
            "measured /s": 1 / looked[number],
            "predicted /s": number / simulated_looks(of, number),
            "measured batch": None,
            "predicted batch": None,
        }
        for number in LOOKERS
    ]


def _row(what: str, real: Appended, model: Appended) -> Row:
    return {
        "what": what,
        "measured /s": real.trees / real.seconds,
        "predicted /s": model.trees / model.seconds,
        "measured batch": real.batch,
        "predicted batch": model.batch,
    }


def calibrated(one: Appended, many: Appended, look: float) -> Parameters:
    """Return parameters whose transactions and looks take the time that they took here, and nothing else does."""
    row = max(0.0, (many.transaction - one.transaction) / (many.batch - 1))
    free = (
        "append_cpu",
        "append_turns",
        "begin_turns",
        "read_turns",
        "transaction_turns",
        "look_turns",
        "flush",
        "look_row_cpu",
    )
    times = {"transaction_cpu": one.transaction - row, "row_cpu": row, "look_cpu": look}
    numbers: dict[str, Any] = dict.fromkeys(free, 0.0) | times
    return replace(defaults(), **numbers)


# -- the real ones -----------------------------------------------------------------------------------------------


async def appended(server: PostgresServer, writers: int, clients: int) -> Appended:
    """Have real logs append trees."""
    url, draws = server.database(), random.Random(0)
    async with AsyncExitStack() as stack:
        logs = [await stack.enter_async_context(await TreeLog.open(url)) for _ in range(writers)]
        trees = [(log, await encoded_trees(log, draws, EACH)) for log in logs for _ in range(clients)]
        for log in logs:  # so that its statements are prepared
            await log.append_encoded(*await encoded_trees(log, draws, 1))
        before, began = sum(log.commits for log in logs), spent(server)
        await asyncio.gather(*(_client(log, mine) for log, mine in trees))
        seconds = spent(server) - began
        number = EACH * writers * clients
        return Appended(number, sum(log.commits for log in logs) - before, seconds)


async def _client(log: TreeLog, trees: Sequence[EncodedTree]) -> None:
    for encoded in trees:
        await log.append_encoded(encoded)


async def looks(server: PostgresServer, replicas: int) -> float:
    """Return the processor seconds of a real look while so many look, each at once after its last."""
    url = server.database()
    stores = [await FleetStore.open(url, patience=60.0) for _ in range(replicas)]
    rows = await join_many(stores[0], replicas)
    await asyncio.gather(*map(_look, stores, rows))
    began = spent(server)
    await asyncio.gather(*map(_look, stores, rows))
    seconds = spent(server) - began
    for store in stores:
        await store.close()
    return seconds / (EACH * replicas)


async def _look(store: FleetStore, mine: Replica) -> None:
    for _ in range(EACH):
        await store.look(mine)


# -- the simulated ones ------------------------------------------------------------------------------------------


def simulated(of: Parameters, writers: int, clients: int) -> Appended:
    """Have simulated writers append trees."""
    env, commits = simpy.Environment(), set[float]()
    log = Log(env, of)

    def client(writer: Writer) -> Work:
        for _ in range(EACH):
            yield writer.tree()
            commits.add(env.now)

    for writer in [Writer(log, int(of.batch)) for _ in range(writers)]:
        for _ in range(clients):
            env.process(client(writer))
    env.run()
    return Appended(EACH * writers * clients, len(commits), env.now)


def simulated_looks(of: Parameters, replicas: int) -> float:
    """Return the median time of a simulated look."""
    env = simpy.Environment()
    rows = Rows(env, replace(of, lease=600.0), replicas)

    def looker(mine: Replica) -> Work:
        for _ in range(EACH):
            yield from rows.look(mine)

    for mine in rows.view.replicas.values():
        env.process(looker(mine))
    env.run()
    return median(rows.waits)
