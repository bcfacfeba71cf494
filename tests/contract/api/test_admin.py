"""The admin routes: verdicts on releases, keys, drain."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from ramify.api.app import admin_application
from ramify.api.routes.admin import router

from . import world as worlds
from .site import Site, a_site
from .world import hold, release, until

pytestmark = pytest.mark.anyio
KEY = "the-admin-key-of-the-tests"


async def test_a_rejected_release_is_never_activated(site: Site) -> None:
    for state, figures in (("candidate", {}), ("rejected", {"greedy": {"lower": -0.1}})):
        reply = await site.admin.put("/admin/releases/v000002", json={"state": state, "figures": figures})
        assert (reply.json()["state"], reply.json()["figures"]) == (state, figures)
    refused = await site.activate("v000002")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "release_rejected")
    assert site.engines.loads == []
    await site.admin.put("/admin/releases/v000002", json={"state": "promoted"})
    assert (await site.activate("v000002")).status_code == 200


async def test_a_verdict_is_on_a_known_release_and_bounded(site: Site) -> None:
    async def put(release_id: str, **body: Any) -> int:
        return (await site.admin.put(f"/admin/releases/{release_id}", json=body)).status_code

    assert await put("v000009", state="promoted") == 404
    assert await put("v000002", state="active") == 400
    assert await put("v000002", state="promoted", figures={"x": "y" * 70_000}) == 400
    assert await put("v000002", state="promoted", figures={"x": "y" * 200_000}) == 413
    assert await put("v000002", state="promoted", path="/etc") == 400


async def test_33_admin_routes_want_the_key_and_are_not_on_the_public_port(tmp_path: Path) -> None:
    async with a_site(tmp_path, admin={"key": KEY}) as site:
        for route in router.routes:
            path = route.path.replace("{release}", "v000002")  # type: ignore[attr-defined]
            for method in route.methods:  # type: ignore[attr-defined]
                assert (await site.http.request(method, path)).status_code == 404
                for value in ("", "Bearer wrong", f"Basic {KEY}", KEY):
                    reply = await site.admin.request(method, path, headers={"Authorization": value})
                    assert reply.status_code == 401, (method, path)
        assert (await site.admin.get("/nothing")).status_code == 401
        found = await site.admin.get("/admin/releases", headers={"Authorization": f"Bearer {KEY}"})
        assert found.status_code == 200


async def test_without_an_admin_key_only_this_machines_names_are_answered(site: Site) -> None:
    reply = await site.admin.get("/admin/releases", headers={"Host": "evil.example"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "host_not_allowed")


async def test_an_admin_drain_ends_searches_and_readiness(site: Site) -> None:
    hold(site.engines)
    running = asyncio.create_task(site.search())
    await until(lambda: site.context.searches.running)
    draining = asyncio.create_task(site.admin.post("/admin/drain", json={"deadline_seconds": 60}))
    await until(lambda: site.context.searches.draining)
    assert (await site.search()).status_code == 503
    release(site.engines)
    assert (await running).json()["status"] == "complete"
    assert (await draining).json()["drained"] is True
    assert (await site.http.get("/readyz")).status_code == 503
    assert (await site.activate("v000002")).status_code == 503


async def test_models_that_are_no_release_are_not_replaced(tmp_path: Path) -> None:
    async with worlds.a_world(tmp_path) as world:
        transport = httpx.ASGITransport(admin_application(world.context, None))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as admin:
            reply = await admin.post("/admin/releases/v000001/activate", json={})
            assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
            listing = (await admin.get("/admin/releases")).json()
    assert (listing["active"], listing["data"]) == ("fake", [])


async def test_a_drained_server_says_how_to_end_the_drain(site: Site) -> None:
    drained = (await site.admin.post("/admin/drain", json={})).json()
    refusals = [await site.search(), await site.http.get("/readyz")]
    assert [reply.status_code for reply in refusals] == [503, 503]
    for said in [drained["message"], *(reply.json()["error"]["message"] for reply in refusals)]:
        assert "until it is started again" in said


async def test_a_server_in_no_fleet_says_so(site: Site) -> None:
    reply = await site.admin.get("/admin/fleet")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert "fleet.name" in reply.json()["error"]["message"]
    for refused in (
        await site.activate("v000002", mode="barrier"),
        await site.admin.post("/admin/releases/rollback", json={"mode": "rolling"}),
    ):
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mode")
    assert site.engines.loads == []
