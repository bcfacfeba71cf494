"""`docker/make_secrets.py`, run as the container runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ramify.settings import BadSettings, load

ROOT = Path(__file__).parents[3]
SETTINGS = ROOT / "server/ramify/settings"
NAMES = {"api_key", "trainer_key", "admin_key", "postgres_password", "objects_key", "grafana_password"}


def make(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "docker/make_secrets.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(SETTINGS), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_is_missing_is_made_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "admin_key").write_text("0f1e2d3c4b5a69788796\n")
    assert make(tmp_path).returncode == 0
    first = held(tmp_path)
    assert set(first) == NAMES | {"keys.toml", "pgpass", "objects.env"}
    assert first["admin_key"] == "0f1e2d3c4b5a69788796\n"
    assert make(tmp_path).returncode == 0
    assert held(tmp_path) == first


def test_each_secret_is_long_and_another(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    made = [make(folder) for folder in (tmp_path, other)]
    secrets = [held(folder)[name].strip() for folder in (tmp_path, other) for name in NAMES]
    assert len(set(secrets)) == 2 * len(NAMES)
    assert min(map(len, secrets)) >= 43  # 32 bytes
    said = "".join(done.stdout + done.stderr for done in made)
    assert not [secret for secret in secrets if secret in said]


def test_the_server_takes_the_keys_and_never_sees_them(tmp_path: Path) -> None:
    make(tmp_path)
    settings = load(auth={"keys_file": tmp_path / "keys.toml"}, admin={"key_file": tmp_path / "admin_key"})
    scopes = {key.name: set(key.scopes) for key in settings.auth.all_keys()}
    assert scopes == {"people": {"search", "log", "feedback"}, "trainer": {"search", "log"}}
    assert settings.admin.digest() is not None
    assert held(tmp_path)["api_key"].strip() not in held(tmp_path)["keys.toml"]


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    make(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes.pop("grafana_password") == 0o444  # Grafana's image runs as another user
    assert set(modes.values()) == {0o400}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_placeholder_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("change-me-change-me\n")
    done = make(tmp_path)
    assert done.returncode == 2
    assert f"{name}: this is a placeholder" in done.stderr
    assert f"delete the file {name} and start again" in done.stderr


@pytest.mark.parametrize(
    ("secret", "complaint"), [("short", "at least 16"), ("a b:c\\defghijklmnop", "no space")]
)
def test_a_secret_that_cannot_serve_is_refused(tmp_path: Path, secret: str, complaint: str) -> None:
    (tmp_path / "postgres_password").write_text(secret)
    done = make(tmp_path)
    assert done.returncode == 2
    assert f"postgres_password: {complaint}" in done.stderr.replace("a key has ", "")


def test_one_secret_for_two_things_is_refused(tmp_path: Path) -> None:
    for name in ("api_key", "admin_key"):
        (tmp_path / name).write_text("0f1e2d3c4b5a69788796")
    done = make(tmp_path)
    assert done.returncode == 2
    assert "are the same" in done.stderr


def test_a_folder_that_cannot_be_written_is_answered_with_whose_it_must_be(tmp_path: Path) -> None:
    done = make(tmp_path / "not-there")
    assert done.returncode == 2
    assert f"must belong to uid {os.getuid()}" in done.stderr


def test_a_missing_key_file_is_named_by_the_server(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"cannot read .*keys\.toml"):
        load(auth={"keys_file": tmp_path / "keys.toml"})
