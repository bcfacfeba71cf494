"""Both clients have a call for every route and for nothing else, and the same family of errors."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from ramify.api.app import admin_routes, routes
from ramify_client import RamifyError, calls

ROOT = Path(__file__).parents[2]
TYPESCRIPT = ROOT / "clients" / "typescript" / "src"
ELSEWHERE = {
    ("POST", "/v1/completions"),  # OpenAI's own clients
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/completions/{id}/cancel"),
    ("POST", "/v1/chat/completions/{id}/cancel"),
    ("POST", "/v1/responses/{id}/cancel"),
    ("POST", "/tokenize"),  # evaluation harnesses
    ("POST", "/detokenize"),
    ("GET", "/tokenizer_info"),
    ("GET", "/livez"),  # orchestrators and Prometheus
    ("GET", "/health"),
    ("GET", "/metrics"),
}
GIVEN: dict[str, Any] = {"budget": {}, "figures": {}, "filters": {}}
"""Arguments for a call's parameters that are no text."""


def served() -> set[tuple[str, str]]:
    """(method, path) of every route that clients may want; what a path's parts are called is left out."""
    found = [r for app in (routes(), admin_routes()) for r in app.routes if isinstance(r, APIRoute)]
    described = [(m, r.path_format) for r in found if r.include_in_schema for m in r.methods]
    return {(method, nameless(path)) for method, path in described if (method, path) not in ELSEWHERE}


def nameless(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def test_the_python_client_has_a_call_for_every_route() -> None:
    made = set()
    for name, function in inspect.getmembers(calls, inspect.isfunction):
        if function.__module__ == calls.__name__ and not name.startswith("_") and name != "read":
            needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            arguments = [GIVEN.get(p.name, "PART") for p in needed if p.kind is not p.VAR_KEYWORD]
            call = function(*arguments)
            made.add((call.method, call.path.replace("PART", "{}")))
    assert made == served()


def test_the_python_clients_tree_is_the_servers() -> None:
    spec = importlib.util.spec_from_file_location("client_types", ROOT / "scripts" / "client_types.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = ROOT / "clients" / "python" / "ramify_client" / "tree.py"
    assert made.read_text() == script.python_tree(), "run `make client-types`"


def test_the_typescript_client_has_a_call_for_every_route() -> None:
    made = re.findall(r'\bcall\(\s*"(\w+)",\s*"([^"]+)"', (TYPESCRIPT / "calls.ts").read_text())
    assert {(method.upper(), nameless(path)) for method, path in made} == served()


def family(kind: type[RamifyError]) -> set[tuple[str, str]]:
    """(name, parent's name) of every error below `kind`."""
    below = kind.__subclasses__()
    return {(one.__name__, kind.__name__) for one in below}.union(*map(family, below))


def test_both_clients_have_the_same_family_of_errors() -> None:
    source = (TYPESCRIPT / "errors.ts").read_text()
    declared = set(re.findall(r"export class (\w+) extends (\w+)", source))
    assert declared - {("RamifyError", "Error")} == family(RamifyError)
    exported = set(re.findall(r"^  (\w+),$", (TYPESCRIPT / "index.ts").read_text(), re.MULTILINE))
    assert exported == {name for name, _ in declared}
