"""Make the secrets that are missing in a folder, once; refuse placeholders. Part of `docker compose up`.

What is there stays as it is, so a folder of one's own secrets serves as well. The server is given sha256 digests of
API keys (`keys.toml`), never the keys. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from placeholders import unusable

PRIVATE, SHARED = 0o400, 0o444
SECRETS: Mapping[str, int] = {
    "api_key": PRIVATE,  # people's: search, log, feedback
    "trainer_key": PRIVATE,  # the trainer's: search, log
    "admin_key": PRIVATE,  # the admin listener's; the trainer has it too
    "postgres_password": PRIVATE,
    "objects_key": PRIVATE,  # the S3 server's; servers and trainer have it too
    "grafana_password": SHARED,  # Grafana's image runs as another user
}
"""Files that hold one secret each, and their modes."""
FORBIDDEN = set(":\\ \n\t")  # what a PostgreSQL password file would read otherwise
KEYS = """\
# Made from api_key and trainer_key at every start. More keys: [[auth.keys]] in the server's configuration.
[[keys]]
name = "people"
sha256 = "{api_key}"
scopes = ["search", "log", "feedback"]
train = true
train_feedback = true

[[keys]]
name = "trainer"
sha256 = "{trainer_key}"
scopes = ["search", "log"]
train = true
"""
OBJECTS = "export AWS_ACCESS_KEY_ID=ramify AWS_SECRET_ACCESS_KEY={}\n"
"""For a shell, which starts what reads it."""
PGPASS = "postgres:5432:ramify:ramify:{postgres_password}\n"


class BadSecret(ValueError):
    """A secret that cannot be used; the message says what to do."""


def main(folder: Path) -> None:
    """Raises `BadSecret`."""
    found = {name: _secret(folder / name, mode) for name, mode in SECRETS.items()}
    if len(set(found.values())) < len(found):
        raise BadSecret("two of the secrets are the same; delete one of the files, and a new one is made")
    digests = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in found.items()}
    _write(folder / "keys.toml", KEYS.format(**digests), PRIVATE)
    _write(folder / "objects.env", OBJECTS.format(shlex.quote(found["objects_key"])), PRIVATE)
    _write(folder / "pgpass", PGPASS.format(**found), PRIVATE)
    sys.stdout.write(
        "secrets are in place. Your API key: docker compose exec server cat /run/secrets/api_key\n"
    )


def _secret(path: Path, mode: int) -> str:
    """Return what the file holds; make it if there is none."""
    if not path.exists():
        _write(path, secrets.token_urlsafe(32) + "\n", mode)
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSecret(f"{path.name} cannot be read by uid {os.getuid()}: {error}") from error
    again = f"delete the file {path.name} and start again: a random one is made"
    if wrong := unusable(secret):
        raise BadSecret(f"{path.name}: {wrong}; or {again}")
    if set(secret) & FORBIDDEN:
        raise BadSecret(f"{path.name}: no space, colon or backslash; {again}")
    return secret


def _write(path: Path, text: str, mode: int) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(text, encoding="utf-8")
        draft.chmod(mode)
        draft.replace(path)
    except OSError as error:
        raise BadSecret(
            f"cannot write {path}: {error.strerror}. The folder must belong to uid {os.getuid()}: "
            f"chown -R {os.getuid()} FOLDER"
        ) from error


def _run(work: Callable[[Path], None], folder: str) -> int:
    try:
        work(Path(folder))
    except BadSecret as error:
        sys.stderr.write(f"secrets: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_run(main, sys.argv[1]))
