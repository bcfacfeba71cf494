"""The viewer's pages and files: what is served, under which headers, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ramify
from ramify.api.routes.pages import static_files

from .world import World

pytestmark = pytest.mark.anyio
WEB = Path(ramify.__file__).parent / "web"
PAGES = ["/", "/search", "/training", "/trees/tree_00000000000000000000000000000001"]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_needs_no_key_and_holds_no_data(keyed: World, path: str) -> None:
    page = await keyed.http.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "letters" not in page.text


@pytest.mark.parametrize("path", [*PAGES, "/static/style.css", "/static/vendor/d3-zoom.js"])
async def test_pages_and_files_let_nothing_in_from_elsewhere(world: World, path: str) -> None:
    headers = (await world.http.get(path)).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "../settings/loading.py",
        "..%2fsettings%2floading.py",
        "/etc/passwd",
        "vendor/",
        "vendor/versions.txt",
        "",
    ],
)
async def test_only_files_of_the_table_are_served(world: World, path: str) -> None:
    answer = await world.http.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("not_found", "unknown_route")


async def test_a_file_that_the_reader_has_is_not_sent_again(world: World) -> None:
    first = await world.http.get("/static/style.css")
    again = await world.http.get("/static/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await world.http.get("/static/style.css", headers={"If-None-Match": '"other"'})
    assert other.content == first.content


def test_pages_have_no_inline_script_or_style() -> None:
    for page in WEB.glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text), page.name
        assert not re.search(r"https?://", text), page.name


def test_our_scripts_never_make_html_of_text() -> None:
    bad = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.html\(")
    for script in WEB.rglob("*.js"):
        if script.parent.name != "vendor":
            assert not bad.search(script.read_text()), script


def test_every_import_of_a_script_is_a_file_that_is_served() -> None:
    for name, (body, _) in static_files().items():
        if name.endswith(".js"):
            for found in re.findall(
                r"""^(?:import|export)[^"';]*? from ["']([^"']+)["'];""", body.decode(), re.M
            ):
                assert found.startswith("."), (name, found)
                target = (WEB / name).parent.joinpath(found).resolve().relative_to(WEB.resolve())
                assert target.as_posix() in static_files(), (name, found)


def test_every_vendored_module_has_its_version_and_its_licence() -> None:
    lines = (WEB / "vendor" / "versions.txt").read_text().split("\n")
    named = {line.split()[0]: line.split()[1] for line in lines if line}
    modules = {path.stem for path in (WEB / "vendor").glob("*.js")}
    assert named.keys() == modules
    for name, version in named.items():
        assert f"v{version} Copyright" in (WEB / "vendor" / f"{name}.js").read_text()[:200]
        assert "Permission to use" in (licence := (WEB / "vendor" / f"{name}.LICENSE").read_text()) or (
            "Redistribution and use" in licence
        )
