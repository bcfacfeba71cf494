"""A server that holds releases, and an operator: what the tests of releases run against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from empty_log import empty_log
from fakes_releases import ReloadingEngines, number, stamped, write_release
from ramify.api.app import admin_application
from ramify.api.context import assemble
from ramify.service.catalogue import at_start
from ramify.service.serving import release_store_of, serving_of
from ramify.settings import Settings
from ramify.treelog import TreeLog
from ramify.weights import load_release

from . import world as worlds
from .world import World, release


@dataclass
class Site(World):
    """A world whose engines hold release v000001 of `root`, and an operator."""

    admin: httpx.AsyncClient
    root: Path

    async def activate(self, release_id: str, **body: Any) -> httpx.Response:
        return await self.admin.post(f"/admin/releases/{release_id}/activate", json=body)

    async def listing(self) -> dict[str, Any]:
        listing: dict[str, Any] = (await self.http.get("/v1/releases")).json()
        return listing

    async def served(self) -> str:
        """The release by every door, which must agree."""
        reply = (await self.search(include_tree=True)).json()
        nodes = {node["release"] for node in reply["tree_document"]["nodes"][1:]}
        version = (await self.http.get("/version")).json()["release"]
        model = (await self.http.get("/v1/models")).json()["data"][0]
        active = (await self.listing())["active"]
        (said,) = {reply["release"], version, model["root"], active, *nodes}
        assert self.engines.held == (number(self.root / said / "policy"), number(self.root / said / "value"))
        return str(said)

    async def metric(self, line: str) -> bool:
        return f"\n{line}" in (await self.http.get("/metrics")).text


@asynccontextmanager
async def a_site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    root = folder / "weights"
    if not root.exists():
        write_release(root, 1.0, 0.1)
        write_release(root, 2.0, 0.2, parent="v000001")
        write_release(root, 3.0, 0.3, parent="v000002")
    chosen = Settings(weights=root, release=root / "v000001", **settings)
    base = load_release(root / "v000001")
    log = await TreeLog.open(empty_log(folder / "trees.db"))
    active, unserved = await at_start(log, root, base, release_store_of(chosen))
    held = number(active.policy_path), number(active.path / "value")
    engines = ReloadingEngines(held=held, serving=serving_of(active, chosen))
    stamped(engines)
    context = assemble(chosen, engines, log, base=base, unserved=unserved)
    apps = worlds.application(context), admin_application(context, chosen.admin.digest())
    http, admin = (
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://127.0.0.1"
        )
        for app in apps
    )
    try:
        async with http, admin:
            yield Site(context, engines, log, http, admin, root)
    finally:
        release(engines)
        await context.releases.settle(5)
        await context.searches.drain(0)
        await log.close()
