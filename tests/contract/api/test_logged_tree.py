"""The logged tree has one schema: what is documented, what the clients' types say, and what is really written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ramify.api.wire_log import LoggedTree, LogRecord
from ramify.search.codec import tree_from_dict

from .world import World, hold, release, until

pytestmark = pytest.mark.anyio
GOLDENS = sorted((Path(__file__).parents[2] / "golden").glob("search_*.json"))


def validated(document: dict[str, Any]) -> BaseModel:
    """The document as the schema has it, without conversions: a number is no text and an integer no flag."""
    return LoggedTree.model_validate_json(json.dumps(document), strict=True)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_every_golden_tree_is_of_the_schema(path: Path) -> None:
    document = json.loads(path.read_text())
    document["usage"].setdefault("seconds", 0.0)
    validated(document)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"seed": "7"}, "seed"),
        ({"usage": {}}, "usage.prompt_tokens"),
    ],
    ids=["version", "unknown", "type", "missing"],
)
def test_the_schema_refuses_what_the_reader_refuses(change: dict[str, Any], said: str) -> None:
    document = json.loads(GOLDENS[0].read_text()) | change
    document["usage"].setdefault("seconds", 0.0) if "usage" not in change else None
    with pytest.raises(ValidationError, match=said):
        validated(document)


async def test_every_written_tree_and_line_is_of_the_schema(world: World) -> None:
    task = {"name": "exact", "problem": {"answer": "a"}}
    first = (await world.search(task=task, search={"budget": {"simulations": 20}}, seed=1)).json()
    for search in (
        {"algorithm": "best_of_n", "budget": {"simulations": 3}},
        {"algorithm": "beam", "budget": {"simulations": 8}},
        {"grader": "verifier", "abandon": True, "budget": {"simulations": 8}},
    ):
        assert (await world.search(task=task, search=search)).status_code == 200
    branch = {"node": 0, "search": {"budget": {"simulations": 2}}}
    assert (await world.http.post(f"/v1/trees/{first['id']}/branch", json=branch)).status_code == 200
    await world.http.post(f"/v1/trees/{first['id']}/feedback", json={"outcome": 1})
    hold(world.engines)
    assert (await world.search(deadline=0.05)).status_code == 504
    release(world.engines)
    await until(lambda: not world.context.searches.running)
    kinds = []
    for line in (await world.http.get("/v1/trees?after=0")).text.splitlines():
        record = LogRecord.model_validate_json(line, strict=True).root
        kinds.append(record.kind)
        if record.kind == "tree":
            validated(record.tree)
            tree_from_dict(record.tree)
    assert sorted(kinds) == ["outcome"] + ["tree"] * 6


OPEN = {
    "LoggedUsedDefaults",
    "LoggedSearchState",  # an algorithm's own attributes
    ("LoggedTree", "problem"),  # its task's
    ("LoggedTree", "conversation"),  # the chat template's variables
}
"""Shapes and fields that may hold anything."""


async def test_the_openapi_document_holds_the_tree_field_by_field(world: World) -> None:
    schemas = (await world.http.get("/openapi.json")).json()["components"]["schemas"]
    reference = "#/components/schemas/LoggedTree"
    assert schemas["TreeReply"]["properties"]["tree"]["$ref"] == reference
    assert {"$ref": reference} in schemas["SearchReply"]["properties"]["tree_document"]["anyOf"]
    assert schemas["TreeRecord"]["properties"]["tree"]["$ref"] == reference
    logged = {name: schema for name, schema in schemas.items() if name.startswith("Logged")}
    assert len(logged) == 16
    for name, schema in logged.items():
        assert schema["additionalProperties"] is False
        for field, about in schema["properties"].items():
            assert "$ref" in about or about.get("description"), f"{name}.{field} has no meaning"
            if name not in OPEN and (name, field) not in OPEN:
                assert '"additionalProperties": true' not in json.dumps(about)
