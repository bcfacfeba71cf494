"""The Python client's operators' side, against a whole admin listener around a fake model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ramify.api.app import admin_application
from ramify_client import AsyncAdmin, Conflict, NotFound, Unauthorized

from .site import Site, a_site

pytestmark = pytest.mark.anyio
KEY = "the-admin-key-of-the-tests"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(tmp_path, admin={"key": KEY}) as site:
        yield site


def operator(site: Site, key: str = KEY) -> AsyncAdmin:
    app = admin_application(site.context, site.context.settings.admin.digest())
    return AsyncAdmin("http://127.0.0.1", key, transport=httpx.ASGITransport(app))


async def test_an_operator_activates_and_goes_back_with_a_note_each(site: Site) -> None:
    async with operator(site) as admin:
        done = await admin.activate("v000002", note="after the gate")
        assert (done.release, done.previous, done.canary.probes) == ("v000002", "v000001", 2)
        assert (await admin.rollback(deadline_seconds=1, note="too slow")).release == "v000001"
        listing = await admin.releases()
        assert listing.active == "v000001"
        notes = [activation["note"] for activation in (await site.listing())["activations"]]
        assert notes[:2] == ["too slow", "after the gate"]


async def test_a_rejected_release_is_a_conflict_and_an_unknown_one_is_not_found(site: Site) -> None:
    async with operator(site) as admin:
        await admin.record("v000003", "rejected", {"greedy": 0.4})
        with pytest.raises(Conflict) as refused:
            await admin.activate("v000003")
        assert refused.value.code == "release_rejected"
        with pytest.raises(NotFound):
            await admin.activate("v000009")


async def test_a_wrong_admin_key_is_unauthorized(site: Site) -> None:
    async with operator(site, "wrong") as admin:
        with pytest.raises(Unauthorized):
            await admin.releases()


async def test_a_drained_server_takes_no_more_searches(site: Site) -> None:
    async with operator(site) as admin:
        await admin.drain(deadline_seconds=1)
    assert (await site.search()).status_code == 503
