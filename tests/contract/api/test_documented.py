"""A running server and docs/ agree: its routes, its metrics, its search parameters' bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from starlette.routing import BaseRoute, Route

from ramify.api.app import routes
from ramify.api.routes.admin import router as admin

from .world import PROMPT, World

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).parents[3] / "docs"


def _routes(all_: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in all_:
        assert isinstance(route, Route)
        for method in route.methods or ():
            yield method, route.path


async def test_every_route_is_in_the_docs(world: World) -> None:
    text = (DOCS / "api.md").read_text() + (DOCS / "clients.md").read_text()
    said = {
        shape(path.rstrip(".")) for path in re.findall(r"(?<=[`\s])/[\w{}/.-]*", text.replace("$URL", ""))
    }
    found = [*_routes(routes().routes), *_routes(admin.routes)]
    assert len(found) > 30
    assert [f"{method} {path}" for method, path in found if shape(path) not in said] == []


def shape(path: str) -> str:
    """A path whatever its parts are called."""
    return re.sub(r"{[\w:]+}", "{}", path)


async def test_every_metric_is_in_the_docs_with_its_kind_and_labels(world: World) -> None:
    await world.search()
    await world.http.post("/v1/completions", json={"prompt": PROMPT})
    page = (DOCS / "operations.md").read_text().partition("\n## Metrics\n")[2]
    registry = world.context.metrics.registry
    known = {getattr(c, "_name", ""): getattr(c, "_labelnames", ()) for c in registry._collector_to_names}
    for family in registry.collect():
        if family.name.startswith("ramify_engine_"):
            continue  # the fake engine's own; a real server's are checked where there is one
        name = exposed(family)
        row = next((line for line in page.splitlines() if f"`{name}`" in line and line.startswith("|")), None)
        assert row, f"docs/operations.md has no row for `{name}` ({family.documentation})"
        labels = ", ".join(f"`{label}`" for label in known.get(family.name, ()))
        assert [cell.strip() for cell in row.split("|")][2:4] == [family.type, labels], name


async def test_no_metric_is_in_the_docs_that_is_not_there(world: World) -> None:
    names = {exposed(family) for family in world.context.metrics.registry.collect()}
    rows = [
        line
        for line in (DOCS / "operations.md").read_text().partition("\n## Metrics\n")[2].splitlines()
        if line.startswith("| `ramify_")
    ]
    said = {name for row in rows for name in re.findall(r"`(ramify_\w+)`", row.split("|")[1])}
    assert {name for name in said - names if not name.startswith("ramify_engine_")} == set()


def exposed(family: Metric) -> str:
    """The name that Prometheus reads."""
    return family.name + "_total" if family.type == "counter" else family.name
