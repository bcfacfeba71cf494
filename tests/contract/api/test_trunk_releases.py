"""Releases whose value is a head on the policy's trunk: listed as such, activated, gone back from, never mixed up with
those of a value model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes_releases import write_release
from ramify.engines import ScorerOptions

from .site import Site, a_site

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Place of a trunk's releases v000001 and v000002, and of v000003, which has a value model."""
    for number in (1.0, 2.0):
        write_release(tmp_path / "weights", number, number / 10, head=True)
    write_release(tmp_path / "weights", 3.0, 0.3)
    return tmp_path


@pytest.fixture
async def site(folder: Path) -> AsyncIterator[Site]:
    async with a_site(folder) as site:
        yield site


async def test_the_kind_of_value_is_told_by_every_door(site: Site) -> None:
    assert [row["value"] for row in (await site.listing())["data"]] == ["trunk", "trunk", "model"]
    models = (await site.http.get("/v1/models")).json()["data"]
    assert {model["value"] for model in models} == {"trunk"}
    assert "letters:mcts" in {model["id"] for model in models}


async def test_a_trunks_release_takes_the_place_of_a_trunks_release_and_is_gone_back_from(site: Site) -> None:
    done = await site.activate("v000002")
    assert done.status_code == 200, done.text
    assert (done.json()["canary"]["probes"], done.json()["canary"]["distinguishable"]) == (2, 2)
    assert await site.served() == "v000002"
    assert (await site.admin.post("/admin/releases/rollback", json={})).json()["release"] == "v000001"
    assert await site.served() == "v000001"


async def test_a_head_that_is_not_the_published_one_is_gone_back_from(site: Site) -> None:
    write_release(site.root, 4.0, 0.4, published=(4.0, 0.5), head=True)
    reply = await site.activate("v000004")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    assert "not the weights that were published" in reply.json()["error"]["message"]
    assert await site.served() == "v000001"


async def test_a_value_model_does_not_take_a_heads_place(site: Site) -> None:
    reply = await site.activate("v000003")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    message = reply.json()["error"]["message"]
    assert "v000001 is served as before" in message
    assert (
        "is a value model, and the release served is judged by a value head on the policy's trunk" in message
    )
    assert site.engines.loads == []
    assert await site.served() == "v000001"


async def test_a_head_does_not_take_a_value_models_place(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        write_release(site.root, 4.0, 0.4, head=True)
        reply = await site.activate("v000004")
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
        assert "start another server for it" in reply.json()["error"]["message"]
        assert site.engines.loads == []
        assert await site.served() == "v000001"


async def test_beside_a_scorer_no_release_is_asked_how_it_would_be_judged(tmp_path: Path) -> None:
    scorer = ScorerOptions(kind="http", url="http://judge.test/")
    async with a_site(tmp_path, scorer=scorer) as site:
        write_release(site.root, 4.0, 0.4, head=True)
        for release in ("v000004", "v000002"):
            reply = await site.activate(release)
            assert reply.status_code == 200, reply.text
            assert await site.served() == release


async def test_a_head_of_another_width_is_refused_before_anything_stops(site: Site) -> None:
    write_release(site.root, 4.0, 0.4, hidden=2, head=True)
    reply = await site.activate("v000004")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    assert site.engines.loads == []


async def test_the_active_trunks_release_survives_a_restart(folder: Path) -> None:
    async with a_site(folder) as site:
        await site.activate("v000002")
    async with a_site(folder) as site:
        assert await site.served() == "v000002"
