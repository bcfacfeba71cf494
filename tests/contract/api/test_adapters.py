"""Releases that need no other weights than those that are loaded, and adapters that cannot be served."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes_releases import write_adapter, write_release
from ramify.weights import Details, publish

from .site import Site, a_site
from .world import hold, release, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def adapting(tmp_path: Path) -> AsyncIterator[Site]:
    """v000001 is served; v000002 is an adapter on it; v000003 has its models under another manifest."""
    root = tmp_path / "weights"
    base = write_release(root, 1.0, 0.1, names=("w", "layer.weight"))
    write_adapter(root, base)
    details = base.manifest.model_dump(include={"name", "canary"}) | {"default_max_tokens": 4}
    publish(root, base.policy_path, base.value_folder, Details(**details))
    async with a_site(tmp_path) as site:
        yield site


async def test_an_adapter_is_refused_by_the_option_that_it_needs(adapting: Site) -> None:
    reply = await adapting.activate("v000002")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    assert "v000002 is a LoRA adapter" in reply.json()["error"]["message"]
    assert "engine.adapters 2 or more" in reply.json()["error"]["message"]
    assert await adapting.served() == "v000001"


async def test_the_listing_names_the_base_of_an_adapter(adapting: Site) -> None:
    bases = {row["id"]: row["base"] for row in (await adapting.listing())["data"]}
    assert bases == {"v000001": None, "v000002": "v000001", "v000003": None}


async def test_an_adapter_on_another_base_is_refused_by_both_names(adapting: Site) -> None:
    base = adapting.root / "v000001"
    kept = shutil.move(base, adapting.root.parent / "kept")
    write_release(adapting.root, 5.0, 0.1, names=("w", "layer.weight"), release_id="v000001")
    message = (await adapting.activate("v000002")).json()["error"]["message"]
    assert "v000002 is an adapter on v000001 with the policy " in message
    shutil.rmtree(base)
    shutil.move(kept, base)


async def test_a_release_of_the_same_weights_waits_for_no_search_and_loads_nothing(adapting: Site) -> None:
    hold(adapting.engines)
    running = asyncio.create_task(adapting.search())
    await until(lambda: adapting.engines.policy.running)
    reply = await adapting.activate("v000003")
    assert (reply.status_code, reply.json()["seconds"]["drain"]) == (200, 0)
    assert not running.done()
    assert adapting.engines.loads == []
    release(adapting.engines)
    assert (await running).json()["status"] == "complete"
    assert await adapting.served() == "v000003"
