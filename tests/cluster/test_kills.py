"""A fleet under kill -9 of everything it has, cut networks and activations: what is acknowledged is logged, once, and
answered as of the release that was served."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import httpx
import pytest
import zstandard
from sqlalchemy import select

from fixtures_objects import CREDENTIALS
from fleet_audit import Answered, Logged, again, faults, read_epochs, read_log
from network import Cable
from ramify.fleet import Epoch
from ramify.objects import ObjectOptions, open_store
from ramify.treelog.schema import trees
from ramify.treelog.store import parse_url, reader_engine
from supervised_fleet import LEASE, SupervisedFleet, a_supervised_fleet, until

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.postgres, pytest.mark.timeout(1800)]
SEED = int(os.environ.get("RAMIFY_CRASH_SEED", "20261129"))
SEARCHES = int(os.environ.get("RAMIFY_CRASH_SEARCHES", "500"))
CLIENTS = 8
KILLS = {"replica": 7, "engine": 5, "database": 4, "object store": 4}
"""How often each is killed."""
CUTS: tuple[tuple[Cable, ...], ...] = (("data",), ("data",), ("data", "front"), ("data", "front"))
"""Cables of a replica that are cut at once, each time."""
ACTIVATIONS = (
    ("v000002", "rolling"), ("v000003", "barrier"), ("v000001", "rolling"),
    ("v000002", "barrier"), ("v000003", "rolling"), ("v000001", "barrier"),
)  # fmt: skip
MEANWHILE = 10
"""Answers of the others while a replica is cut off for a moment."""
AGAIN = (409, 429, 502, 503, 504)
"""Statuses after which a client asks again."""
LONGEST = 400.0
"""Seconds within which a client is to have its answer."""
QUICK, SLOW = {"LOAD_SECONDS": "0.2"}, {"LOAD_SECONDS": "1.5"}
"""The first has a release long before the second, so that one that answered too early would be seen."""
USUAL = {LEASE: "4", "DRAW_SECONDS": "0.02", "RAMIFY_CHECKPOINTS__SECONDS": "0.5"}
BODY = {"prompt": "?\n", "search": {"budget": {"simulations": 8}}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Run:
    """Clients' answers, and the deeds done to the fleet meanwhile."""

    fleet: SupervisedFleet
    answers: list[Answered] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)
    """Errors after which clients asked again."""
    back: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds from each kill or cut until the fleet, or the replica, served again."""
    activations: Counter[str] = field(default_factory=Counter)
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """One thing is killed once at a time."""

    # -- clients

    async def client(self, seeds: Sequence[int]) -> None:
        for seed in seeds:
            self.answers.append(await self.answer(seed))

    async def answer(self, seed: int) -> Answered:
        """Search; ask again, with the same key, until there is an answer: the front door, then a replica, and so on."""
        ways = [self.fleet.http, *(one.http for one in self.fleet.replicas)]
        give_up, told, attempt = time.monotonic() + LONGEST, "", seed
        while time.monotonic() < give_up:
            attempt += 1
            try:
                reply = await self.ask(seed, ways[attempt % len(ways)])
            except httpx.HTTPError as error:
                told = type(error).__name__
            else:
                if reply.status_code == 200:
                    found = reply.json()
                    return Answered(seed, found["tree"]["id"], found["release"], time.time())
                assert reply.status_code in AGAIN, f"{reply.status_code} {reply.text}"
                told = f"{reply.status_code} {reply.json()['error']['code']}"
            self.again[told] += 1
            await asyncio.sleep(0.2)
        raise AssertionError(f"search {seed} has no answer after {LONGEST:.0f} s: {told}")

    async def ask(self, seed: int, way: httpx.AsyncClient) -> httpx.Response:
        body, key = {**BODY, "seed": seed}, {"Idempotency-Key": f"search {seed}"}
        return await way.post("/v1/search", json=body, headers=key)

    async def assert_replayed(self, logged: Sequence[Logged]) -> None:
        """Ask all again, under the same keys: nothing that was searched to its end is searched anew."""
        whole = {tree.id for tree in logged if tree.status == "complete"}
        for answer in self.answers:
            if answer.tree in whole:
                reply = await self.ask(answer.seed, self.fleet.http)
                assert (reply.status_code, reply.json()["tree"]["id"]) == (200, answer.tree)

    # -- what is done to the fleet

    async def kill_replica(self, number: int) -> None:
        one = self.fleet.replicas[number]
        async with self.locks[f"replica {number}"]:
            await until(one.ready, f"replica {number} is ready to be killed")
            one.kill()
            await self.until_back("replica", one.ready)

    async def kill_engine(self, number: int) -> None:
        one = self.fleet.replicas[number]
        async with self.locks[f"replica {number}"]:
            await until(one.ready, f"replica {number} is ready to lose its engine")
            engine, ends = one.engine(), len(one.exits)
            assert engine is not None
            engine.kill()
            await until(lambda: len(one.exits) > ends, "a replica whose engine died has ended")
            await self.until_back("engine", one.ready)

    async def kill_database(self, _: int) -> None:
        async with self.locks["database"]:
            await asyncio.to_thread(self.fleet.database.kill)
            await asyncio.to_thread(self.fleet.database.go_on)
            await self.until_back("database", self.anyone_ready)

    async def kill_store(self, _: int) -> None:
        async with self.locks["object store"]:
            await asyncio.to_thread(self.fleet.store.kill)
            await asyncio.to_thread(self.fleet.store.start)
            await self.until_back("object store", self.anyone_ready)

    async def cut_off(self, number: int, cables: Sequence[Cable], release: str | None) -> None:
        """Cut a replica off: until it is not ready any more and a release was activated without it, or for a moment."""
        one = self.fleet.replicas[number]
        async with self.locks[f"replica {number}"]:
            one.place.cut(*cables)
            try:
                if release is not None:
                    await until(lambda: self.out_of_service(number), f"replica {number} is cut off")
                    await self.activate(release, "barrier", without=number)
                else:
                    answered = len(self.answers)
                    await until(lambda: self.done(answered + MEANWHILE), "the others answer")
            finally:
                one.place.mend()
            await self.until_back(f"cut of {' and '.join(cables)}", one.ready)

    async def activate(self, release: str, mode: str, without: int | None = None) -> None:
        done = await self.fleet.activate(release, mode, without)
        self.activations[f"{mode}: {'committed' if done else 'gone back'}"] += 1

    async def until_back(self, what: str, ready: Callable[[], Awaitable[bool]]) -> None:
        began = time.monotonic()
        await until(ready, f"served again after the end of: {what}")
        self.back[what].append(time.monotonic() - began)

    async def anyone_ready(self) -> bool:
        return any([await one.ready() for one in self.fleet.replicas])

    async def out_of_service(self, number: int) -> bool:
        return not await self.fleet.replicas[number].ready()

    def done(self, answers: int) -> bool:
        return len(self.answers) >= min(answers, SEARCHES)

    def table(self, epochs: Sequence[Epoch], logged: Sequence[Logged], seconds: float) -> str:
        statuses, by_id = Counter(tree.status for tree in logged), {tree.id: tree for tree in logged}
        anew = sum(len(again(logged, by_id[one.tree])) for one in self.answers if one.tree in by_id)
        lines = [
            f"{len(self.answers)} searches of {CLIENTS} clients answered in {seconds:.0f} s, seed {SEED}",
            f"trees in the log: {dict(statuses)}; {anew} of a replica that was cut off, searched anew meanwhile",
            f"asked again after: {dict(self.again.most_common())}",
            f"activations: {dict(self.activations)}; epochs: {len(epochs)}",
            *(f"epoch {epoch.number} went back: {epoch.error}" for epoch in epochs if epoch.error),
            f"{'kill -9 of, or cut':>20} {'times':>5} {'served again after, s: median, longest':>40}",
        ]
        for what, times in sorted(self.back.items()):
            median = sorted(times)[len(times) // 2]
            lines.append(f"{what:>20} {len(times):>5} {median:>33.1f} {max(times):>6.1f}")
        return "\n".join(lines)


Deed = Callable[[Run], Awaitable[None]]
Kind = Literal["replica", "engine", "database", "object store"]


def deeds(rng: random.Random) -> list[Deed]:
    """All that is done to the fleet, in an order that the seed decides."""
    kill = {
        "replica": Run.kill_replica, "engine": Run.kill_engine,
        "database": Run.kill_database, "object store": Run.kill_store,
    }  # fmt: skip
    found: list[Deed] = []
    for what, times in KILLS.items():
        found += [lambda run, kind=kill[what], number=i % 2: kind(run, number) for i in range(times)]
    for i, cables in enumerate(CUTS):
        release = f"v00000{2 + i % 2}" if i % 2 else None
        found.append(lambda run, n=i // 2, c=cables, r=release: run.cut_off(n, c, r))
    for release, mode in ACTIVATIONS:
        found.append(lambda run, r=release, m=mode: run.activate(r, m))
    rng.shuffle(found)
    return found


async def under_attack(run: Run, rng: random.Random) -> None:
    """Have all clients search to their end, and do all that is to be done, evenly spread over their answers."""
    order = list(range(SEARCHES))
    rng.shuffle(order)
    planned = deeds(rng)
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(run.client(order[number::CLIENTS]))
        for place, deed in enumerate(planned, 1):
            due = SEARCHES * place // (len(planned) + 1)
            await until(lambda due=due: run.done(due), f"{due} answers", LONGEST)  # type: ignore[misc]
            group.create_task(deed(run))  # type: ignore[arg-type]


async def assert_bodies_are_in_the_store(fleet: SupervisedFleet) -> None:
    """Read the rows and the objects that they name without the log's own code, and hash them."""
    engine = reader_engine(parse_url(fleet.log))
    async with engine.connect() as conn:
        rows = (
            await conn.execute(select(trees.c.tree_id, trees.c.sha256, trees.c.body, trees.c.store))
        ).all()
    await engine.dispose()
    store = open_store(fleet.bucket, ObjectOptions(endpoint=fleet.store.endpoint))
    for tree_id, sha256, body, place in rows:
        assert (body, place) == (b"", 1), tree_id
        found = await asyncio.to_thread(store.read, f"trees/{sha256[:2]}/{sha256}")
        text = zstandard.ZstdDecompressor().decompress(found)
        assert hashlib.sha256(text).hexdigest() == sha256, tree_id


@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """The source of the order in which things are done; the S3 server's credentials are in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return random.Random(SEED)


async def test_whatever_is_killed_or_cut_off_each_answer_is_logged_once_and_of_the_release_that_was_served(
    tmp_path: Path, attack: random.Random
) -> None:
    async with a_supervised_fleet(tmp_path, 2, USUAL | QUICK, USUAL | SLOW) as fleet:
        run, began = Run(fleet), time.monotonic()
        await under_attack(run, attack)
        seconds = time.monotonic() - began
        await until(fleet.all_ready, "both are ready in the end")
        epochs = await read_epochs(fleet.log)
        logged = await read_log(fleet.log, ObjectOptions(endpoint=fleet.store.endpoint))
        print("", run.table(epochs, logged, seconds), sep="\n")
        await assert_bodies_are_in_the_store(fleet)
        found = list(faults(run.answers, logged, epochs))
        assert not found, "\n".join(found)
        await run.assert_replayed(logged)
        assert len(run.answers) == SEARCHES
        assert sum(len(run.back[what]) for what in KILLS) == sum(KILLS.values()) == 20
        assert run.activations["rolling: committed"] >= 2
        assert run.activations["barrier: committed"] >= 2
        assert_audit_notices(run.answers, logged, epochs)


def assert_audit_notices(
    answers: Sequence[Answered], logged: Sequence[Logged], epochs: Sequence[Epoch]
) -> None:
    """Put faults into these very answers: the audit has to find each."""
    one, last = answers[0], epochs[-1]
    other = next(epoch.release for epoch in epochs if epoch.release != one.release)
    tree = next(tree for tree in logged if tree.id == one.tree)
    rest = [each for each in logged if each is not tree]
    late = replace(tree, ended=(last.ended_at or 0.0) + 1000.0, releases=(other,))
    for wrong, log in (
        (one, rest),  # it is lost
        (one, [*logged, replace(tree, id=f"tree_0{tree.owner}")]),  # it was searched twice
        (replace(one, release=other), logged),  # it is said to be another release's
        (
            replace(one, release="v000009"),
            [*rest, replace(tree, releases=("v000009",))],
        ),  # which nobody served
        (replace(one, release=_replaced(epochs), arrived=late.ended), [*rest, late]),  # or served no more
    ):
        assert list(faults([wrong], log, epochs))


def _replaced(epochs: Sequence[Epoch]) -> str:
    """A release that is not served in the end."""
    served = next(epoch.release for epoch in reversed(epochs) if epoch.state == "committed")
    return next(epoch.release for epoch in epochs if epoch.release != served)
