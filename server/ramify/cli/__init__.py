"""The `ramify` command: one module a command, each importing what it needs when it runs, so that help comes at once."""

from __future__ import annotations

__all__ = ["app"]

try:
    from ramify.cli.main import app
except ModuleNotFoundError as missing:
    if missing.name not in ("typer", "rich"):
        raise
    raise SystemExit(
        "the ramify command needs the extra cpu or gpu: pip install '.[cpu]' in a checkout (README.md)"
    ) from missing
