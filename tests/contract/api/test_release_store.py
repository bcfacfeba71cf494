"""A server whose releases lie in a bucket: it lists them, fetches what it serves, and does without while it is away."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fakes_releases import write_release
from fixtures_objects import S3Server, s3_server  # noqa: F401  (a fixture)
from ramify.objects import open_store
from ramify.service import releases
from ramify.settings import BadSettings, Settings, load
from ramify.weights import ReleaseStore, list_releases

from .site import a_site

pytestmark = pytest.mark.anyio


@pytest.fixture
def objects(tmp_path: Path, s3_server: S3Server) -> dict[str, Any]:  # noqa: F811
    """Settings of a bucket with three releases, of which the server's folder has the first."""
    settings = {"releases": s3_server.bucket(), "endpoint": s3_server.endpoint, "retries": 0, "seconds": 30.0}
    store = ReleaseStore(open_store(settings["releases"], s3_server.options()), tmp_path / "trainer")
    for number in (1.0, 2.0, 3.0):
        store.publish(write_release(store.folder, number, number / 10))
    shutil.copytree(store.folder / "v000001", tmp_path / "weights/v000001")
    return settings


async def test_what_is_published_elsewhere_is_listed_fetched_served_and_served_after_a_restart(
    tmp_path: Path, objects: dict[str, Any]
) -> None:
    async with a_site(tmp_path, objects=objects) as site:
        rows = {row["id"]: row for row in (await site.listing())["data"]}
        assert sorted(rows) == ["v000001", "v000002", "v000003"]
        assert (rows["v000003"]["value"], rows["v000003"]["on_disk"]) == ("model", True)
        assert list_releases(site.root) == ["v000001"]
        assert (await site.activate("v000003")).status_code == 200
        assert await site.served() == "v000003"
        assert list_releases(site.root) == ["v000001", "v000003"]
    shutil.rmtree(tmp_path / "weights/v000003")  # as on another node
    async with a_site(tmp_path, objects=objects) as site:
        assert await site.served() == "v000003"
        assert (await site.activate("v000009")).status_code == 404


async def test_while_the_bucket_is_away_what_is_at_hand_can_be_activated_and_nothing_else_changes(
    tmp_path: Path,
    objects: dict[str, Any],
    s3_server: S3Server,  # noqa: F811
) -> None:
    async with a_site(tmp_path, objects=objects) as site:
        assert (await site.activate("v000002")).status_code == 200
        s3_server.doorway.shut()
        try:
            assert sorted(row["id"] for row in (await site.listing())["data"]) == ["v000001", "v000002"]
            refused = await site.activate("v000003")
            assert refused.status_code == 409
            assert "s3://" in refused.json()["error"]["message"]
            assert await site.served() == "v000002"
            assert (await site.activate("v000001")).status_code == 200
        finally:
            s3_server.doorway.open()
        assert (await site.activate("v000003")).status_code == 200
        assert await site.served() == "v000003"


async def test_a_bucket_that_hangs_holds_no_thread_that_others_need(
    tmp_path: Path,
    objects: dict[str, Any],
    s3_server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases, "STORE_SECONDS", 1.0)
    async with a_site(tmp_path, objects={**objects, "seconds": 10.0}) as site:
        with ThreadPoolExecutor(1) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            s3_server.hang()
            try:
                async with asyncio.timeout(8):
                    listings = await asyncio.gather(*(site.listing() for _ in range(4)))
                    await asyncio.to_thread(lambda: None)
            finally:
                s3_server.go_on()
    for listing in listings:
        assert [row["id"] for row in listing["data"]] == ["v000001"]


async def test_what_is_served_and_the_way_back_stay_in_a_full_cache(
    tmp_path: Path, objects: dict[str, Any]
) -> None:
    async with a_site(tmp_path, objects={**objects, "cache_bytes": 500}) as site:  # two releases of 222 bytes
        assert (await site.activate("v000002")).status_code == 200
        refused = await site.activate("v000003")
        assert "objects.cache_bytes" in refused.json()["error"]["message"]
        assert await site.served() == "v000002"
        assert (await site.admin.post("/admin/releases/rollback", json={})).status_code == 200
        assert await site.served() == "v000001"


def test_a_store_of_releases_needs_a_folder() -> None:
    with pytest.raises(BadSettings, match=r"objects\.releases needs weights"):
        load(objects={"releases": "s3://bucket/x"})
    assert Settings(weights="w", objects={"releases": "s3://bucket/x"}).objects.releases == "s3://bucket/x"
