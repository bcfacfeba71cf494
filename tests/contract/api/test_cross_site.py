"""A page of another site, open in a browser on this machine, changes nothing on listeners without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from .site import Site
from .world import KEYS, World, a_world

pytestmark = pytest.mark.anyio

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example", "Content-Type": "application/json"},
]
OWN = [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://127.0.0.1:8000"}]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    "path", ["/admin/drain", "/admin/releases/rollback", "/admin/releases/v000001/activate"]
)
async def test_a_foreign_page_changes_nothing_on_the_admin_listener(
    site: Site, path: str, headers: dict[str, str]
) -> None:
    reply = await site.admin.post(path, headers=headers, content="{}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "cross_site")
    assert not site.context.searches.draining


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("body", ["", "{}"])
async def test_the_admin_listener_takes_json_only_also_where_the_body_is_empty(
    site: Site, kind: str | None, body: str
) -> None:
    reply = await site.admin.post(
        "/admin/drain", headers={"Content-Type": kind} if kind else {}, content=body
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert not site.context.searches.draining


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_foreign_page_starts_and_deletes_nothing_on_a_public_listener_without_keys(
    world: World, headers: dict[str, str]
) -> None:
    for method, path in (("POST", "/v1/search"), ("DELETE", "/v1/trees/tree_0"), ("PUT", "/v1/consumers/c")):
        reply = await world.http.request(method, path, headers=headers, content="{}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "cross_site")
    assert (await world.http.get("/v1/trees", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", OWN)
async def test_the_servers_own_pages_and_other_programs_are_answered(
    world: World, headers: dict[str, str]
) -> None:
    reply = await world.http.post("/v1/search", json={"prompt": "?\n"}, headers=headers)
    assert reply.status_code == 200


async def test_with_keys_the_key_decides_wherever_the_page_is_from(tmp_path: Path) -> None:
    async with a_world(tmp_path, auth={"keys": KEYS}) as world:
        reply = await world.http.post(
            "/v1/search", json={"prompt": "?\n"}, headers=world.as_key("alice") | FOREIGN[0]
        )
        assert reply.status_code == 200
