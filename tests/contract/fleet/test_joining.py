"""Who joins a fleet: its settings and number, and what a fleet needs of its log. A real PostgreSQL, fake engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import ramify
from contract.fleet.replicas import a_replica, releases_of, until_ready
from ramify.fleet import FleetError, FleetStore
from ramify.fleet.schema import VERSIONS, metadata
from ramify.settings import BadSettings, load
from ramify.treelog.schema import metadata as of_the_log

pytestmark = [pytest.mark.anyio, pytest.mark.postgres]


async def test_who_may_not_join_is_told_why_and_the_fleet_is_unharmed(
    url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_replica(url, root) as one:
        await until_ready(one)
        with monkeypatch.context() as patched:
            patched.setattr(ramify, "__version__", "0.0.9")
            with pytest.raises(FleetError, match=r"runs Ramify .* and this is 0\.0\.9"):
                async with a_replica(url, root):
                    pass
        with pytest.raises(FleetError, match=r"belongs to the fleet 'letters', not 'words'"):
            async with a_replica(url, root, fleet={"name": "words"}):
                pass
        assert await releases_of(one) == ["v000001"]
        assert len((await one.state())["replicas"]) == 1


async def test_each_replica_has_a_number_of_its_own_which_its_answers_and_ids_name(
    url: str, root: Path
) -> None:
    async with a_replica(url, root) as one, a_replica(url, root) as two:
        await until_ready(one, two)
        for number, replica in enumerate((one, two)):
            answer = await replica.search()
            assert answer.headers["x-ramify-replica"] == str(number)
            assert answer.json()["id"].endswith(f"{number:02x}")
        async with a_replica(url, root, replica=9) as nine, a_replica(url, root) as third:
            assert (nine.fleet.mine.number, third.fleet.mine.number) == (9, 2)
        async with a_replica(url, root) as again:
            assert again.fleet.mine.number == 2
        assert [row["number"] for row in (await one.state())["replicas"]] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"log": "trees.db", "fleet": {"name": "a"}}, "fleet.name: replicas share a log on PostgreSQL"),
        ({"policy": "p", "log": "postgresql://x/y", "fleet": {"name": "a"}}, "a fleet serves releases"),
        ({"fleet": {"lease_seconds": 5}}, "give the fleet a name"),
        ({"fleet": {"name": "a", "lease_seconds": 2, "heartbeat_seconds": 1}}, "at least three times"),
        ({"fleet": {"name": "a", "address": "10.0.0.5:8000"}}, "begin with http://"),
        ({"fleet": {"nam": "a"}}, "fleet.nam"),
    ],
)
def test_settings_that_make_no_fleet_are_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        load(**settings)


async def test_a_log_on_sqlite_has_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="PostgreSQL"):
        await FleetStore.open(f"sqlite:///{tmp_path}/trees.db", 1.0)


async def test_the_migrations_make_exactly_the_tables_that_the_code_uses(url: str, root: Path) -> None:
    theirs = {*of_the_log.tables, "alembic_version", VERSIONS}

    def compared(conn: Any) -> Any:
        options = {"include_name": lambda name, kind, parents: kind != "table" or name not in theirs}
        return compare_metadata(MigrationContext.configure(conn, opts=options), metadata)

    async with a_replica(url, root) as one, one.fleet.store._engine.connect() as conn:
        assert await conn.run_sync(compared) == []
