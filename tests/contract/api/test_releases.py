"""Releases in a running server: what is activated, what is gone back to, and what the log says."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from fakes_releases import write_release
from ramify.service.catalogue import lineage
from ramify.treelog.records import Activation

from .site import Site, a_site
from .world import PROMPT, until

pytestmark = pytest.mark.anyio


async def test_an_activated_release_is_served_and_said_everywhere(site: Site) -> None:
    assert await site.served() == "v000001"
    reply = (await site.activate("v000002", note="after the gate")).json()
    assert (reply["object"], reply["release"], reply["previous"]) == ("activation", "v000002", "v000001")
    assert (reply["canary"]["probes"], reply["canary"]["distinguishable"]) == (2, 2)
    assert reply["canary"]["max_logprob_error"] < 1e-6
    assert set(reply["seconds"]) == {"drain", "reload", "canary", "total"}
    assert await site.served() == "v000002"
    listing = await site.listing()
    assert (listing["active"], listing["previous"]) == ("v000002", "v000001")
    assert [row["active"] for row in listing["data"]] == [False, True, False]
    assert [(row["release"], row["kind"], row["note"]) for row in listing["activations"]] == [
        ("v000002", "activate", "after the gate"),
        ("v000001", "automatic", "served until now"),
    ]
    assert (await site.admin.get("/admin/releases")).json() == listing
    assert await site.metric('ramify_release_info{model="letters",release="v000002"} 1.0')
    assert await site.metric('ramify_release_activations_total{result="activated"} 1.0')
    assert await site.metric("ramify_release_reload_seconds_count 1.0")


async def test_activating_what_is_served_changes_nothing(site: Site) -> None:
    for _ in range(2):
        assert (await site.activate("v000001")).status_code == 200
    assert site.engines.loads == []


async def test_the_active_release_survives_a_restart(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        await site.activate("v000002")
    async with a_site(tmp_path) as site:
        assert await site.served() == "v000002"
        await site.activate("v000003")
        rolled = (await site.admin.post("/admin/releases/rollback", json={})).json()
        assert (rolled["release"], rolled["previous"]) == ("v000002", "v000003")
    async with a_site(tmp_path) as site:
        assert await site.served() == "v000002"


@pytest.mark.parametrize("chosen", ["v000001", "v000003"])
async def test_a_server_whose_active_release_is_gone_at_start_answers_nobody_until_another_is_activated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, chosen: str
) -> None:
    async with a_site(tmp_path) as site:
        await site.activate("v000002")
    shutil.rmtree(tmp_path / "weights" / "v000002")
    with caplog.at_level("ERROR"):
        async with a_site(tmp_path) as site:
            for asked in (
                site.http.get("/readyz"),
                site.search(),
                site.http.post("/v1/completions", json={"prompt": PROMPT}),
                site.http.post("/v1/value", json={"prompt": PROMPT, "continuations": ["a"]}),
            ):
                refused = await asked
                assert refused.status_code == 503
                assert "the active release cannot be served" in refused.json()["error"]["message"]
            assert (await site.http.get("/livez")).status_code == 200
            assert (await site.activate(chosen)).status_code == 200
            assert await site.served() == chosen
            assert (await site.http.get("/readyz")).status_code == 200
    assert "v000002" in caplog.text


async def test_rollbacks_go_back_and_never_forward(site: Site) -> None:
    await site.activate("v000002")
    await site.activate("v000003")
    for expected in ("v000002", "v000001"):
        assert (await site.admin.post("/admin/releases/rollback", json={})).json()["release"] == expected
        assert await site.served() == expected
    none = await site.admin.post("/admin/releases/rollback", json={})
    assert (none.status_code, none.json()["error"]["code"]) == (409, "conflict")


def test_what_a_rollback_goes_back_to_is_found_as_on_a_stack() -> None:
    def line(*rows: tuple[str, str]) -> list[str]:
        return lineage([Activation(i, r, "", 0.0, kind) for i, (r, kind) in enumerate(rows)][::-1])  # type: ignore[arg-type]

    assert line(("a", "activate"), ("b", "activate"), ("a", "rollback")) == ["a"]
    assert line(("a", "activate"), ("b", "activate"), ("a", "activate")) == ["b", "a"]
    assert line(("a", "automatic"), ("b", "activate"), ("b", "automatic")) == ["a", "b"]
    assert line(("a", "activate"), ("b", "activate"), ("c", "activate"), ("a", "rollback")) == ["a"]


async def test_a_release_whose_canary_lies_is_gone_back_from_and_that_is_said(site: Site) -> None:
    write_release(site.root, 4.0, 0.4, published=(4.1, 0.4))
    reply = await site.activate("v000004")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    assert "not the weights that were published" in reply.json()["error"]["message"]
    assert "v000001 is loaded again and served" in reply.json()["error"]["message"]
    assert site.engines.loads == ["v000004", "v000001"]
    assert await site.served() == "v000001"
    listing = await site.listing()
    assert [(row["release"], row["kind"]) for row in listing["activations"]] == [("v000001", "automatic")]
    assert "v000004 failed" in listing["activations"][0]["note"]
    assert await site.metric('ramify_release_activations_total{result="rolled_back"} 1.0')
    assert (await site.activate("v000002")).status_code == 200


@pytest.mark.parametrize(("fault", "said"), [("deaf", "not the weights"), ("stale", "cached prefixes")])
async def test_24_engines_that_say_they_reloaded_and_did_not_are_found_out(
    site: Site, fault: str, said: str
) -> None:
    setattr(site.engines, fault, True)
    reply = await site.activate("v000002")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    assert said in reply.json()["error"]["message"]
    assert await site.served() == "v000001"


async def test_an_engine_that_raises_while_it_loads_is_loaded_back(site: Site) -> None:
    site.engines.broken = {"v000002"}
    assert (await site.activate("v000002")).json()["error"]["code"] == "activation_failed"
    assert await site.served() == "v000001"


async def test_a_release_that_the_gate_rejects_while_it_is_loaded_is_not_served_and_stays_rejected(
    site: Site,
) -> None:
    site.engines.loading = asyncio.Event()
    asked = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    verdict = {"state": "rejected", "figures": {"accuracy": 0.1}}
    assert (await site.admin.put("/admin/releases/v000002", json=verdict)).status_code == 200
    site.engines.loading.set()
    reply = await asked
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "activation_failed")
    assert "the gate rejected v000002 while it was being activated" in reply.json()["error"]["message"]
    assert await site.served() == "v000001"
    row = next(row for row in (await site.listing())["data"] if row["id"] == "v000002")
    assert (row["state"], row["figures"]["accuracy"]) == ("rejected", 0.1)
    assert (await site.activate("v000002")).json()["error"]["code"] == "release_rejected"


async def test_engines_that_cannot_be_loaded_back_end_the_server(site: Site) -> None:
    site.engines.broken = {"v000001", "v000002"}
    site.engines.loading = asyncio.Event()
    activation = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    late = asyncio.create_task(site.search())
    await until(lambda: site.context.searches.admission.waiting)
    site.engines.loading.set()
    assert (await activation).status_code == 503
    assert site.engines.dead.is_set()
    assert "v000001 could not be loaded again" in (site.engines.dead_reason or "")
    assert (await site.http.get("/readyz")).status_code == 503
    assert not late.done(), "nobody may search what the engines hold now"
    await site.context.searches.drain(0)  # as the server does when an engine has died
    assert (await late).status_code == 503
    assert site.engines.policy.requests == []


async def test_25_a_release_that_vanishes_while_it_is_loaded_leaves_the_old_one(site: Site) -> None:
    site.engines.loading = asyncio.Event()
    asked = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    shutil.rmtree(site.root / "v000002")
    site.engines.loading.set()
    assert (await asked).json()["error"]["code"] == "activation_failed"
    assert await site.served() == "v000001"


async def test_25_nothing_is_activated_where_the_way_back_is_gone(site: Site) -> None:
    await site.activate("v000002")
    shutil.rmtree(site.root / "v000002")
    reply = await site.activate("v000003")
    assert "no way back" in reply.json()["error"]["message"]
    assert site.engines.loads == ["v000002"]


async def test_a_release_like_the_one_before_is_recorded_as_indistinguishable(site: Site) -> None:
    write_release(site.root, 1.0005, 0.1001)
    reply = (await site.activate("v000004")).json()
    assert (reply["canary"]["probes"], reply["canary"]["distinguishable"]) == (2, 0)
    assert "cannot tell" in (await site.listing())["activations"][0]["note"]


LONG_PROBES = (((1, 2), tuple(range(3, 123))), ((1, 2, 3), (4,)))


async def test_many_tokens_that_moved_a_little_tell_two_releases_apart(site: Site) -> None:
    write_release(site.root, 1.002, 0.1, probes=LONG_PROBES)  # 120 tokens by 2 tolerances each, and 1
    reply = (await site.activate("v000004")).json()
    assert (reply["canary"]["probes"], reply["canary"]["distinguishable"]) == (2, 1)


async def test_rounding_alone_tells_nothing_apart(site: Site) -> None:
    write_release(site.root, 1.0003, 0.1, probes=LONG_PROBES)
    reply = (await site.activate("v000004")).json()
    assert reply["canary"]["distinguishable"] == 0


async def test_24_weights_before_are_found_out_within_the_tolerance_of_every_token(site: Site) -> None:
    write_release(site.root, 1.00099, 0.1, probes=LONG_PROBES)
    site.engines.deaf = True
    reply = await site.activate("v000004")
    assert reply.json()["error"]["code"] == "activation_failed"
    assert "not the weights that were published" in reply.json()["error"]["message"]
    assert await site.served() == "v000001"
