"""Whole rounds against a whole server over HTTP: its searches are the fake language's, its releases real models."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes_training import Site, a_site, small
from ramify_client import AsyncAdmin, AsyncClient
from ramify_trainer.loop.rounds import Loop

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def a_loop(folder: Path, site: Site, **changes: Any) -> AsyncIterator[Loop]:
    config = small(folder, site.url, site.admin_url, **changes)
    async with AsyncClient(site.url) as client, AsyncAdmin(site.admin_url) as admin:
        loop = Loop(config, client, admin, lambda *_: None)
        await loop.start()
        yield loop
        loop.worker.close()


async def test_a_round_ends_in_a_better_known_server_and_a_moved_cursor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_site(tmp_path) as site, a_loop(tmp_path, site) as loop:
        with caplog.at_level(logging.INFO, "ramify_trainer"):
            record = await loop.holding(loop.round())
        assert (record.trees, record.steps, record.release, record.promoted) == (6, 4, "v000002", True)
        assert site.engines.loads == ["v000002"]
        assert (loop.puller.cursor, loop.puller.backlog) == (6, 0)
        listing = await loop.client.releases()
        (row,) = [row for row in listing.data if row.id == "v000002"]
        assert (listing.active, row.state) == ("v000002", "promoted")
        assert row.figures["reason"].startswith("promoted: at worst ")
        lines = [line for line in caplog.messages if line.startswith("round 1 ")]
        assert [line.split()[2] for line in lines] == list(record.seconds)
        assert "trees=6 steps=4" in lines[2]
