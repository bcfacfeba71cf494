from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from ramify.api.app import routes
from ramify.api.scopes import ScopedRoute

from .world import PROMPT, World, a_world

pytestmark = pytest.mark.anyio
PAGES = {"/", "/trees/{tree}", "/search", "/training", "/static/{name:path}"}
"""The viewer's own files, which hold no data: what they show they ask for with a key."""
OPEN = {"/livez", "/readyz", "/health", "/version", "/metrics", "/openapi.json"} | PAGES


async def test_32_every_route_declares_its_scope() -> None:
    found = [route for route in routes().routes if isinstance(route, APIRoute)]
    assert len(found) == len(routes().routes) >= 18
    for route in found:
        assert isinstance(route, ScopedRoute)
        assert ("open" in route.scopes) == (route.path in OPEN), route.path


async def test_32_a_route_without_a_scope_cannot_be_made() -> None:
    router = APIRouter(route_class=ScopedRoute)
    with pytest.raises(TypeError, match="declares no scope"):

        @router.get("/v1/secrets")
        async def secrets() -> None: ...


async def test_every_closed_route_wants_a_key(keyed: World) -> None:
    for route in routes().routes:
        assert isinstance(route, ScopedRoute)
        if route.path in OPEN:
            continue
        path = route.path.replace("{name:path}", "x").replace("{", "").replace("}", "")
        for method in route.methods:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
                answer = await keyed.http.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path)
                assert answer.json()["error"]["type"] == "authentication_error"
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_32_the_host_header_opens_nothing(keyed: World) -> None:
    for host in ("127.0.0.1/livez?", "livez", "x/../livez", "evil.example"):
        answer = await keyed.http.get("/v1/trees", headers={"Host": host})
        assert answer.status_code == 401


async def test_odd_spellings_of_a_path_open_nothing(keyed: World) -> None:
    for path in (
        "/v1/trees/",
        "//v1/trees",
        "/livez/../v1/trees",
        "/v1/%74rees",
        "/V1/trees",
        "/livez%2f..%2fv1/trees",
    ):
        answer = await keyed.http.get(path)
        assert answer.status_code in (401, 404), path


async def test_a_key_can_do_what_its_scopes_say(keyed: World) -> None:
    alice, trainer = keyed.as_key("alice"), keyed.as_key("trainer")
    assert (await keyed.search(headers=alice)).status_code == 200
    refused = await keyed.search(headers=trainer)
    assert refused.status_code == 403
    assert refused.json()["error"]["type"] == "permission_error"
    assert (await keyed.http.get("/v1/consumers/x", headers=alice)).status_code == 403
    assert (await keyed.http.get("/v1/trees?after=0", headers=alice)).status_code == 403
    assert (await keyed.http.get("/v1/models", headers=trainer)).status_code == 200


async def test_a_refused_key_is_told_before_its_body_is_read(keyed: World) -> None:
    answer = await keyed.http.post("/v1/search", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 401


async def test_a_search_key_sees_its_own_trees_only(keyed: World) -> None:
    alice, bob, trainer = (keyed.as_key(name) for name in ("alice", "bob", "trainer"))
    reply = (await keyed.search(headers=alice)).json()
    for path in (f"/v1/search/{reply['id']}", f"/v1/trees/{reply['tree']['id']}"):
        assert (await keyed.http.get(path, headers=alice)).status_code == 200
        assert (await keyed.http.get(path, headers=bob)).status_code == 404
        assert (await keyed.http.get(path, headers=trainer)).status_code == 200
    cancel = f"/v1/search/{reply['id']}/cancel"
    assert (await keyed.http.post(cancel, headers=bob)).status_code == 404
    assert (
        await keyed.http.post(f"/v1/trees/{reply['id']}/feedback", json={"outcome": 1}, headers=bob)
    ).status_code == 404
    assert len((await keyed.http.get("/v1/trees", headers=alice)).json()["data"]) == 1
    assert (await keyed.http.get("/v1/trees", headers=bob)).json()["data"] == []
    assert (await keyed.http.get("/v1/trees?key=alice", headers=bob)).json()["data"] == []
    assert len((await keyed.http.get("/v1/trees?key=alice", headers=trainer)).json()["data"]) == 1


async def test_feedback_trains_only_from_keys_that_may_teach(keyed: World) -> None:
    for name, teaches in (("alice", False), ("bob", True)):
        key = keyed.as_key(name)
        reply = (await keyed.search(headers=key)).json()
        verdict = await keyed.http.post(f"/v1/trees/{reply['id']}/feedback", json={"outcome": 0}, headers=key)
        assert verdict.status_code == 200, verdict.text
        assert verdict.json()["train"] is teaches
        assert verdict.json()["node"] == reply["answer"]["node"]


async def test_searches_train_only_from_keys_that_may_teach(keyed: World) -> None:
    for name, teaches in (("alice", False), ("bob", True)):
        key = keyed.as_key(name)
        for path, body in (
            ("/v1/search", {"prompt": PROMPT, "train": True}),
            ("/v1/completions", {"prompt": PROMPT, "search": {"train": True, "budget": {"tokens": 50}}}),
        ):
            assert (await keyed.http.post(path, json=body, headers=key)).status_code == 200
        rows = (await keyed.http.get(f"/v1/trees?key={name}", headers=key)).json()["data"]
        assert [row["train"] for row in rows] == [teaches] * 2


async def test_a_lease_is_the_keys_that_took_it(tmp_path: Path) -> None:
    keys = [{"name": n, "key": f"{n}-{n}-{n}-{n}-{n}", "scopes": ["log"]} for n in ("one", "two")]
    async with a_world(tmp_path, auth={"keys": keys}) as world:
        one, two = ({"Authorization": f"Bearer {key['key']}"} for key in keys)
        lease = {"owner": "me", "lease_seconds": 60}
        taken = await world.http.put("/v1/consumers/c", json=lease, headers=one)
        assert taken.json()["key"] == "one"
        stolen = await world.http.put("/v1/consumers/c", json=lease, headers=two | {"If-Match": '"1"'})
        assert (stolen.status_code, stolen.json()["error"]["code"]) == (409, "lease_held")
        kept = await world.http.put("/v1/consumers/c", json=lease, headers=one | {"If-Match": '"1"'})
        assert kept.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "0.0.0.0:8000"]
)
async def test_without_keys_only_loopback_names_are_answered(tmp_path: Path, host: str) -> None:
    async with a_world(tmp_path) as world:
        answer = await world.http.get("/v1/trees", headers={"Host": host})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "host_not_allowed"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:8000", "[::1]:8000", "127.0.0.2"])
async def test_every_loopback_name_is_answered(world: World, host: str) -> None:
    answer: httpx.Response = await world.http.get("/v1/trees", headers={"Host": host})
    assert answer.status_code == 200
