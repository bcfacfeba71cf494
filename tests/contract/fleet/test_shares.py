"""One API key at two replicas of a fleet on a real PostgreSQL: its limit holds for both together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.api.world import hold, release, until
from contract.fleet.replicas import SHORT, Local, a_door, a_replica, until_ready
from ramify.service.admission import Admission, Ticket

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]
EACH, LIMIT = 8, 40
LIMITED = {"admission": {"key_tokens_in_flight": LIMIT}}
KEY = ""
"""The only key of a server without keys."""


def ask(replica: Local, times: int) -> list[asyncio.Task[httpx.Response]]:
    """Ask for searches of EACH tokens, each of which runs until its engine is released."""
    if replica.engines.policy.gate is None:
        hold(replica.engines)
    body: dict[str, Any] = {"search": {"budget": {"tokens": EACH}}, "sampling": {"max_tokens": EACH}}
    return [asyncio.create_task(replica.search(**body)) for _ in range(times)]


def held(*replicas: Local) -> list[int]:
    return [replica.context.searches.admission.reserved for replica in replicas]


def demand(replica: Local) -> int:
    queue = replica.context.searches.admission.keys.get(KEY)
    return queue.demand if queue is not None else 0


async def test_a_key_that_asks_both_at_once_never_holds_more_than_its_limit(
    url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_replica(url, root, **LIMITED) as one, a_replica(url, root, **LIMITED) as two:
        await until_ready(one, two)
        let_in, seen = Admission._let_in, [0]

        def noted(self: Admission, ticket: Ticket) -> None:
            let_in(self, ticket)
            seen.append(sum(held(one, two)))

        monkeypatch.setattr(Admission, "_let_in", noted)
        store = two.fleet.store
        async with store._transaction() as conn:
            await store._lock(conn)  # no look tells either of what the other is asked for
            asked = [*ask(one, 5), *ask(two, 5)]
            await until(lambda: [demand(each) for each in (one, two)] == [LIMIT, LIMIT])
        await until(lambda: sum(held(one, two)) == LIMIT)
        await until(lambda: one.context.searches.admission.elsewhere)
        (refused,) = await asyncio.gather(*ask(one, 1))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_over_share")
        release(one.engines)
        release(two.engines)
        replies = await asyncio.gather(*asked)
        assert [reply.status_code for reply in replies] == [200] * 10, "what waited came in, here and there"
        assert max(seen) == LIMIT


async def test_one_replica_grants_all_of_a_limit_that_no_other_uses(url: str, root: Path) -> None:
    async with a_replica(url, root, **LIMITED) as one, a_replica(url, root, **LIMITED) as two:
        await until_ready(one, two)
        asked = ask(one, 5)
        await until(lambda: held(one) == [LIMIT])
        release(one.engines)
        assert [reply.status_code for reply in await asyncio.gather(*asked)] == [200] * 5


async def test_what_a_replica_held_that_is_cut_off_is_free_after_its_lease(
    url: str, root: Path, short: Path
) -> None:
    settings = {**LIMITED, "fleet": {"lease_seconds": SHORT}}
    async with (
        a_replica(url, root, **settings) as one,
        a_door(short, url) as door,
        a_replica(door.url, root, **settings) as two,
    ):
        await until_ready(one, two)
        admission, standing = one.context.searches.admission, two.context.searches.admission.standing
        lost = ask(two, 3)
        await until(lambda: held(two) == [3 * EACH])
        await until(lambda: admission.elsewhere.get(KEY) == 3 * EACH)
        asked = ask(one, 2)
        await until(lambda: held(one) == [2 * EACH])
        door.shut()
        try:
            (refused,) = await asyncio.gather(*ask(one, 1))
            assert (refused.status_code, standing.lapsed()) == (429, None), "it may still be answering"
            await until(lambda: not admission.elsewhere)
            assert standing.lapsed()
            asked += ask(one, 3)
            await until(lambda: held(one) == [LIMIT])
        finally:
            door.open.set()
            release(one.engines)
            release(two.engines)
        assert [reply.status_code for reply in await asyncio.gather(*asked)] == [200] * 5
        assert [reply.status_code for reply in await asyncio.gather(*lost)] == [503] * 3


async def test_a_server_without_a_limit_or_without_a_fleet_has_no_shares(url: str, root: Path) -> None:
    async with a_replica(url, root) as one:
        await until_ready(one)
        assert one.context.searches.admission.shares is None
        assert one.fleet.mine.shares is None
