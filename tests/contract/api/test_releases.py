"""Releases in a running server: what is activated, what is refused, what is gone back to, and what the log says."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from fakes_releases import ReloadingEngines, number, stamped, write_release
from ramify.api.admin import admin_application, router
from ramify.api.assembly import assemble
from ramify.service.releases import at_start, lineage
from ramify.service.served import of_release
from ramify.settings import Settings
from ramify.treelog import TreeLog
from ramify.treelog.records import Activation
from ramify.weights import load_release
from ramify.weights.publish import digest

from . import world as worlds
from .world import World, hold, release, until

pytestmark = pytest.mark.anyio
KEY = "the-admin-key-of-the-tests"


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
        (model,) = (await self.http.get("/v1/models")).json()["data"]
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
    log = await TreeLog.open(f"sqlite:///{folder}/trees.db")
    active = await at_start(log, root, base)
    engines = ReloadingEngines(held=(number(active.policy_path), number(active.value_path)))
    stamped(engines, active.id)
    context = assemble(chosen, engines, of_release(active, chosen).model, log, base=base, current=active)
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


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(tmp_path) as site:
        yield site


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
        rolled = (await site.admin.post("/admin/releases/rollback")).json()
        assert (rolled["release"], rolled["previous"]) == ("v000002", "v000003")
    async with a_site(tmp_path) as site:
        assert await site.served() == "v000002"


async def test_an_active_release_that_is_gone_at_start_gives_way_to_the_base_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_site(tmp_path) as site:
        await site.activate("v000002")
    shutil.rmtree(tmp_path / "weights" / "v000002")
    with caplog.at_level("ERROR"):
        async with a_site(tmp_path) as site:
            assert await site.served() == "v000001"
    assert "v000002" in caplog.text


async def test_rollbacks_go_back_and_never_forward(site: Site) -> None:
    await site.activate("v000002")
    await site.activate("v000003")
    for expected in ("v000002", "v000001"):
        assert (await site.admin.post("/admin/releases/rollback", json={})).json()["release"] == expected
        assert await site.served() == expected
    none = await site.admin.post("/admin/releases/rollback")
    assert (none.status_code, none.json()["error"]["code"]) == (409, "conflict")


def test_what_a_rollback_goes_back_to_is_found_as_on_a_stack() -> None:
    def line(*rows: tuple[str, str]) -> list[str]:
        return lineage([Activation(i, r, "", 0.0, kind) for i, (r, kind) in enumerate(rows)][::-1])  # type: ignore[arg-type]

    assert line(("a", "activate"), ("b", "activate"), ("a", "rollback")) == ["a"]
    assert line(("a", "activate"), ("b", "activate"), ("a", "activate")) == ["b", "a"]
    assert line(("a", "automatic"), ("b", "activate"), ("b", "automatic")) == ["a", "b"]
    assert line(("a", "activate"), ("b", "activate"), ("c", "activate"), ("a", "rollback")) == ["a"]


def rewrite(root: Path, **arrays: Any) -> None:
    """Put other tensors into v000002, and into its manifest."""
    folder = root / "v000002"
    save_file(
        {name: np.asarray(value, np.float32) for name, value in arrays.items()},
        folder / "policy/model.safetensors",
    )
    made = load_manifest(folder)
    made["files"]["policy/model.safetensors"] = digest(folder / "policy/model.safetensors").model_dump()
    store_manifest(folder, made)


def load_manifest(folder: Path) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


def store_manifest(folder: Path, content: dict[str, Any]) -> None:
    import json

    (folder / "manifest.json").write_text(json.dumps(content))


def truncated(root: Path) -> None:
    path = root / "v000002/policy/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def truncated_and_signed(root: Path) -> None:
    truncated(root)
    made = load_manifest(root / "v000002")
    made["files"]["policy/model.safetensors"] = digest(root / "v000002/policy/model.safetensors").model_dump()
    store_manifest(root / "v000002", made)


def other_hash(root: Path) -> None:
    path = root / "v000002/value/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_architecture(root: Path) -> None:
    shutil.rmtree(root / "v000002")
    write_release(root, 2.0, 0.2, release_id="v000002", hidden=2)


def a_symlink(root: Path) -> None:
    (root / "v000002").rename(root / "elsewhere")
    (root / "v000002").symlink_to(root / "elsewhere")


def a_linked_file(root: Path) -> None:
    path = root / "v000002/policy/model.safetensors"
    path.rename(root / "model.safetensors")
    path.symlink_to(root / "model.safetensors")


def another_tokenizer(root: Path) -> None:
    (root / "v000002/value/tokenizer.json").write_text('{"other": 1}')
    made = load_manifest(root / "v000002")
    made["files"]["value/tokenizer.json"] = digest(root / "v000002/value/tokenizer.json").model_dump()
    store_manifest(root / "v000002", made)


BAD = {
    "truncated": (truncated, "bytes"),
    "truncated, with a fitting hash": (truncated_and_signed, "ends before its tensor"),
    "wrong hash": (other_hash, "sha256"),
    "missing tensor": (lambda root: rewrite(root, other=[1, 1]), "lacks 1 tensors: w"),
    "a tensor too many": (lambda root: rewrite(root, w=[1, 1], more=[1]), "too many"),
    "another shape": (lambda root: rewrite(root, w=[1, 1, 1]), "shape"),
    "NaN": (lambda root: rewrite(root, w=[1, np.nan]), "NaN or infinite"),
    "infinite": (lambda root: rewrite(root, w=[-np.inf, 1]), "NaN or infinite"),
    "another architecture": (other_architecture, "hidden_size is 2, not 1"),
    "another tokenizer": (another_tokenizer, "tokens would mean other things"),
    "a symlink": (a_symlink, "symbolic link"),
    "a symlink inside": (a_linked_file, "symbolic link"),
    "a pickle": (lambda root: (root / "v000002/policy/pytorch_model.bin").write_bytes(b"x"), "safetensors"),
    "unfinished": (lambda root: (root / "v000002/READY").unlink(), "READY"),
    "no manifest": (lambda root: (root / "v000002/manifest.json").unlink(), "missing"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_release_is_refused_before_an_engine_is_touched_and_the_old_one_serves(
    site: Site, name: str
) -> None:
    spoil, said = BAD[name]
    spoil(site.root)
    reply = await site.activate("v000002")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (409, "activation_failed")
    assert said in error["message"]
    assert "v000001 is served as before" in error["message"]
    assert site.engines.loads == []
    assert await site.served() == "v000001"
    (row,) = [row for row in (await site.listing())["data"] if row["id"] == "v000002"]
    assert row["state"] == "failed"
    assert said in row["figures"]["activation_error"]
    assert (await site.listing())["activations"] == []


@pytest.mark.parametrize(
    "given",
    ["v000009", "latest", "..%2Fv000002", "%2e%2e%2fv000002", "v0000021", "v000002%00", "V000002"],
)
async def test_only_ids_of_releases_are_taken(site: Site, given: str) -> None:
    reply = await site.admin.post(f"/admin/releases/{given}/activate")
    assert reply.status_code == 404, reply.text
    assert site.engines.loads == []


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
    assert "nearer to the figures of the weights before" in reply.json()["error"]["message"]
    assert await site.served() == "v000001"


async def test_searches_that_run_end_first_and_those_that_come_wait(site: Site) -> None:
    hold(site.engines)
    running = [asyncio.create_task(site.search(include_tree=True)) for _ in range(32)]
    await until(lambda: len(site.context.searches.running) == 32)
    activation = asyncio.create_task(site.activate("v000002", deadline_seconds=60))
    await until(lambda: site.context.searches.admission.paused)
    late = [asyncio.create_task(site.search(include_tree=True)) for _ in range(8)]
    await until(lambda: len(site.context.searches.admission.waiting) == 8)
    for path in ("/livez", "/readyz", "/version", "/v1/trees", "/v1/releases"):
        assert (await site.http.get(path)).status_code == 200
    assert site.engines.loads == []
    release(site.engines)
    replies = [(await task).json() for task in (*running, *late)]
    assert (await activation).status_code == 200
    assert {reply["status"] for reply in replies} == {"complete"}
    for reply, expected in zip(replies, ["v000001"] * 32 + ["v000002"] * 8, strict=True):
        nodes = {node["release"] for node in reply["tree_document"]["nodes"][1:]}
        assert {reply["release"], *nodes} == {expected}


async def test_a_search_that_outlasts_the_deadline_is_drained_and_answered(site: Site) -> None:
    budget = {"budget": {"simulations": 10_000, "tokens": 200_000}}
    running = asyncio.create_task(site.search(search=budget))
    await until(lambda: site.engines.policy.generated > 50)
    hold(site.engines)
    assert (await site.activate("v000002", deadline_seconds=0.05)).status_code == 200
    reply = (await running).json()
    assert (reply["status"], reply["stop_reason"], reply["release"]) == ("drained", "drain", "v000001")
    release(site.engines)
    assert await site.served() == "v000002"


async def test_what_waits_too_long_is_503_with_retry_after(tmp_path: Path) -> None:
    async with a_site(tmp_path, admission={"queue_seconds": 0.05}) as site:
        site.engines.loading = asyncio.Event()
        activation = asyncio.create_task(site.activate("v000002"))
        await until(lambda: site.engines.loads)
        reply = await site.search()
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_full")
        assert "being activated" in reply.json()["error"]["message"]
        assert 1 <= int(reply.headers["retry-after"]) <= 10
        site.engines.loading.set()
        assert (await activation).status_code == 200
        assert await site.served() == "v000002"


async def test_one_activation_at_a_time(site: Site) -> None:
    site.engines.loading = asyncio.Event()
    first = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    second = await site.activate("v000003")
    assert (second.status_code, second.json()["error"]["code"]) == (409, "activation_in_progress")
    site.engines.loading.set()
    assert (await first).status_code == 200
    assert await site.served() == "v000002"


async def test_an_operator_who_hangs_up_does_not_leave_it_half_way(site: Site) -> None:
    site.engines.loading = asyncio.Event()
    asked = asyncio.create_task(site.activate("v000002"))
    await until(lambda: site.engines.loads)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    site.engines.loading.set()
    await until(lambda: not site.context.releases.busy)
    assert await site.served() == "v000002"


async def test_engines_that_never_rest_are_left_alone(site: Site) -> None:
    site.engines.never_idle = True
    assert "as before" in (await site.activate("v000002")).json()["error"]["message"]
    assert site.engines.loads == []
    assert await site.served() == "v000001"


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
            reply = await admin.post("/admin/releases/v000001/activate")
            assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
            listing = (await admin.get("/admin/releases")).json()
    assert (listing["active"], listing["data"]) == ("fake", [])
