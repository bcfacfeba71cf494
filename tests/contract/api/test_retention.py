"""Old trees go by the settings, and never one that a registered consumer has still to read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ramify.cli import app
from ramify.service.retention import Retention
from ramify.settings import RetentionSettings
from ramify.treelog import TreeLog
from ramify.treelog.records import LogSize
from treelog_trees import make_tree

from .world import World, a_world, until

pytestmark = pytest.mark.anyio


async def filled(world: World, n: int) -> list[str]:
    """The log with trees of 1970, and their ids."""
    made = [make_tree(2) for _ in range(n)]
    for tree in made:
        await world.log.append(tree)
    return [tree.id for tree in made]


async def ids(world: World) -> list[str]:
    return [row.tree_id for row in await world.logged()][::-1]


async def test_the_server_expires_what_its_settings_say_and_consumers_have_read(tmp_path: Path) -> None:
    async with a_world(tmp_path, retention={"days": 30}) as world:
        made = await filled(world, 4)
        young = (await world.search(search={"budget": {"simulations": 2}})).json()["tree"]["id"]
        await world.log.put_consumer("slow", version=None, cursor=2)
        await world.context.retention.once()
        assert await ids(world) == [*made[2:], young]
        listed = (await world.http.get("/v1/consumers")).json()["data"]
        assert [(c["name"], c["cursor"], c["high_water"]) for c in listed] == [("slow", 2, 5)]
        assert (await world.http.delete("/v1/consumers/slow")).json()["deleted"] is True
        assert (await world.http.delete("/v1/consumers/slow")).status_code == 404
        await world.context.retention.once()
        assert await ids(world) == [young]
        text = world.context.metrics.text().decode()
        assert "ramify_log_trees 1.0" in text
        assert "ramify_log_expired_trees_total 4.0" in text


async def test_upkeep_goes_on_after_a_mistake_of_ours() -> None:
    class Mistaken:
        """A log whose first answer is a mistake."""

        sizes = 0

        async def sweep(self) -> int:
            return 0

        async def size(self) -> LogSize:
            self.sizes += 1
            if self.sizes == 1:
                raise KeyError("a column")
            return LogSize(3, 100, None)

    log: Any = Mistaken()
    at_once = RetentionSettings.model_construct(days=None, bytes=None, every_seconds=0)
    retention = Retention(log, at_once, sweep_seconds=0, expired=lambda _: None, now=lambda: 0.0)
    upkeep = asyncio.create_task(retention.run())
    await until(lambda: retention.figures.trees == 3)
    upkeep.cancel()


async def test_a_leased_consumer_is_not_deleted(world: World) -> None:
    await world.http.put("/v1/consumers/c", json={"owner": "me", "lease_seconds": 60})
    refused = await world.http.delete("/v1/consumers/c")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "lease_held")


async def test_a_log_that_is_to_stay_small_loses_its_oldest(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        made = await filled(world, 6)
        most = (await world.log.size()).bytes * 7 // 12  # three and a half of six
        assert (await world.log.expirable(keep_bytes=most)).trees == 3
    async with a_world(tmp_path, retention={"bytes": most}) as world:
        await world.context.retention.once()
        assert await ids(world) == made[3:]
        assert world.context.retention.figures.bytes <= most


async def test_without_a_setting_trees_are_kept_for_ever(world: World) -> None:
    made = await filled(world, 3)
    await world.context.retention.once()
    assert await ids(world) == made
    assert world.context.retention.figures.trees == 3


def test_the_command_counts_first_and_deletes_only_with_yes(tmp_path: Path) -> None:
    path = f"{tmp_path}/trees.db"

    async def fill() -> None:
        async with await TreeLog.open(f"sqlite:///{path}") as log:
            for _ in range(3):
                await log.append(make_tree(2))
            await log.put_consumer("slow", version=None, cursor=2)

    def said(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["trees", "expire", "--log", path, *arguments])

    asyncio.run(fill())
    assert "2 trees" in said("--days", "30").output
    assert "slow has read up to 2" in said("--days", "30").output
    assert said().exit_code != 0, "nothing says what to delete"
    assert "deleted 2 trees" in said("--days", "30", "--yes").output
    assert "0 trees" in said("--days", "30").output


async def test_beside_a_running_server_the_command_deletes_nothing(world: World) -> None:
    await filled(world, 2)
    path = str(world.log.store.path)
    arguments = ["trees", "expire", "--log", path, "--days", "30"]
    counted = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert "2 trees" in counted.output
    refused = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--yes"])
    assert refused.exit_code != 0
    assert len(await world.logged()) == 2
