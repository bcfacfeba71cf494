"""`ramify-trainer` as people start it: a process with a TOML file, keys in files, against a server with keys."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes_training import Site, a_site, small_settings, write_toml

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
KEYS = {"trainer": "the-key-of-the-trainer", "admin": "the-admin-key-of-the-tests"}
SERVER: dict[str, Any] = {
    "auth": {
        "keys": [{"name": "trainer", "key": KEYS["trainer"], "scopes": ["search", "log"], "train": True}]
    },
    "admin": {"key": KEYS["admin"]},
}


def configured(folder: Path, site: Site, **learning: Any) -> Path:
    settings = small_settings(folder, site.url, site.admin_url)
    settings |= {"name": "night", "rounds": 1, "service": {"port": 0}}
    settings["collect"]["problems"] = 4
    settings["learning"] |= learning
    for name, key in KEYS.items():
        (folder / f"{name}.key").write_text(f"{key}\n")
    settings["server"] |= {"key_file": f"{folder}/trainer.key", "admin_key_file": f"{folder}/admin.key"}
    return write_toml(folder / "trainer.toml", settings)


async def trainer(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and what it said."""
    return await python("-m", "ramify_trainer", *arguments, **environment)


async def python(*arguments: str, **environment: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    try:
        said, _ = await asyncio.wait_for(child.communicate(), 200)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return child.returncode, said.decode()


async def test_run_trains_with_keys_from_files_and_collects_nothing_that_collect_has(tmp_path: Path) -> None:
    async with a_site(tmp_path, **SERVER) as site:
        config = str(configured(tmp_path, site))
        code, said = await trainer("collect", "--config", config)
        assert (code, await site.searches()) == (0, 4), said
        assert "4 searches (4 complete)" in said
        code, said = await trainer("run", "--config", config)
        assert (code, await site.searches(), site.context.serving.release) == (0, 4, "v000002"), said
        assert " INFO ramify_trainer.loop.rounds round 1 train " in said
        assert "%|" not in said, "no bars of other people's in the log"
        assert "Warning" not in said
        assert not any(key in said for key in KEYS.values())


REFUSALS = """
import json, sys
from typer.testing import CliRunner
from ramify_trainer.cli import app
replies = [CliRunner().invoke(app, command, env=world) for command, world in json.loads(sys.argv[1])]
print(json.dumps([(reply.exit_code, reply.output) for reply in replies]))
"""


async def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    site = Site("http://127.0.0.1:9", "http://127.0.0.1:9", *[None] * 3)  # type: ignore[arg-type]
    config, absent = configured(tmp_path, site), tmp_path / "absent.toml"
    many = tmp_path / "many.toml"
    many.write_text(config.read_text() + "[distributed]\nprocesses = 0\n")
    (tmp_path / "trainer.key").unlink()
    commands = [
        (["run", "--config", str(config)], {}),
        (["loop", "--config", str(absent)], {}),
        (["run", "--config", str(many)], {}),
    ]
    code, said = await python("-c", REFUSALS, json.dumps(commands))
    assert code == 0, said
    key, file, processes = json.loads(said.splitlines()[-1])
    told = (
        f"ramify-trainer run: the key file {tmp_path}/trainer.key cannot be read: No such file or directory\n"
    )
    assert key == [1, told]
    assert file[0] == 1
    assert [line.partition(": ")[0] for line in file[1].splitlines()] == ["ramify-trainer loop"]
    assert "absent.toml" in file[1]
    assert processes[0] == 1
    assert "distributed.processes" in processes[1]


async def test_threads_that_wait_do_not_spin_since_that_is_set_before_torch_is_loaded() -> None:
    code = (
        "import os, sys; del os.environ['OMP_WAIT_POLICY']; from ramify_trainer.cli import main; main(); "
        "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    assert await python("-c", code, OMP_WAIT_POLICY="ACTIVE") == (0, "False PASSIVE\n")


@pytest.mark.slow
async def test_two_processes_train_a_round_of_the_service(tmp_path: Path) -> None:
    """With sharded weights; that whole copies learn the same is shown of the learner."""
    async with a_site(tmp_path, **SERVER) as site:
        config = configured(tmp_path, site, sharding="fsdp2")
        config.write_text(config.read_text() + "[distributed]\nprocesses = 2\n")
        code, said = await trainer("run", "--config", str(config))
        assert (code, await site.searches(), site.context.serving.release) == (0, 4, "v000002"), said
        assert " round 1 train " in said
        assert "%|" not in said, "no bars of other people's in the log"
        assert "Warning" not in said


async def test_the_command_s_module_is_the_command() -> None:
    code, said = await python("-m", "ramify_trainer.cli", "--help")
    assert (code, "gate-power" in said) == (0, True)
