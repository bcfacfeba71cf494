"""The TypeScript client against a whole server around a fake model, over sockets: `clients/typescript/test`."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from node import NPM, TYPESCRIPT_CLIENT, node, typescript_client
from ramify.api.app import admin_application, application

from .site import a_site
from .world import PROMPT, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]
KEY, ADMIN_KEY = "typescript-typescript", "the-admin-key-of-the-tests"
SCOPES = ["search", "log", "feedback"]
ROOT = Path(__file__).parents[3]


async def test_the_typescript_client_passes_its_suite(tmp_path: Path) -> None:
    package = await asyncio.to_thread(typescript_client)
    keys = {"keys": [{"name": "typescript", "key": KEY, "scopes": SCOPES}]}
    async with a_site(tmp_path, auth=keys, admin={"key": ADMIN_KEY}) as site:
        admin = admin_application(site.context, site.context.settings.admin.digest())
        async with serving(application(site.context)) as url, serving(admin) as admin_url:
            where = {"RAMIFY_BASE_URL": url, "RAMIFY_ADMIN_URL": admin_url}
            secrets = {"RAMIFY_API_KEY": KEY, "RAMIFY_ADMIN__KEY": ADMIN_KEY}
            command = ("--test", "--test-timeout=120000", "--test-reporter=tap", "test/*.test.ts")
            told = await asyncio.to_thread(node, package, *command, **where, **secrets, RAMIFY_PROMPT=PROMPT)
    passed = re.search(r"^# pass (\d+)$", told, re.MULTILINE)
    assert passed
    assert int(passed[1]) >= 50, told[-4000:]
    assert "# skipped 0" in told, told[-4000:]


def test_the_committed_types_are_those_of_the_servers_documents(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "src").mkdir(parents=True)
    (package / "node_modules").symlink_to(typescript_client() / "node_modules")
    command = [sys.executable, str(ROOT / "scripts" / "client_types.py"), str(package)]
    subprocess.run(command, check=True, timeout=120)
    for name in ("schema.ts", "admin_schema.ts"):
        made, committed = ((folder / "src" / name).read_text() for folder in (package, TYPESCRIPT_CLIENT))
        assert made == committed, f"{name} is out of date: make client-types"


def test_the_package_depends_on_nothing_at_run_time_and_its_lock_file_names_no_registry() -> None:
    package = json.loads((TYPESCRIPT_CLIENT / "package.json").read_text())
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & set(package)
    lock = (TYPESCRIPT_CLIENT / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "://" not in re.sub(r'"url": "[^"]*"', "", lock)  # but for where to thank an author
    imported = re.findall(
        r'from "([^"]+)"', "".join(p.read_text() for p in TYPESCRIPT_CLIENT.glob("src/*.ts"))
    )
    assert imported
    assert all(name.startswith("./") for name in imported), imported


def test_the_packed_package_is_imported_by_its_name(tmp_path: Path) -> None:
    told = node(
        typescript_client(),
        str(NPM),
        "pack",
        "--ignore-scripts",
        "--json",
        "--pack-destination",
        str(tmp_path),
    )
    (packed,) = json.loads(told)
    with tarfile.open(tmp_path / packed["filename"]) as archive:
        archive.extractall(tmp_path / "node_modules", filter="data")
    (tmp_path / "node_modules" / "package").rename(tmp_path / "node_modules" / "ramify-client")
    script = "import { Client } from 'ramify-client'; console.log(typeof new Client().search)"
    assert node(tmp_path, "--input-type=module", "--eval", script) == "function\n"
