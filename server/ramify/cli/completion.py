"""Candidates for a shell's completion: algorithms, methods, trees and releases as they are now.

Each function takes what has been typed and gives candidates, some with a word on each. What cannot be read (a log, a
server, another package's entry point) offers nothing: an error would be printed into the line that is being typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from ramify.cli.terminal import errors

NEWEST = 20
"""Trees that are offered."""


def algorithms(incomplete: str) -> list[str]:
    from ramify.search.algorithms import ALGORITHMS

    return _starting(incomplete, ALGORITHMS)


def tasks(incomplete: str) -> list[str]:
    from ramify.extensions import BadExtension
    from ramify.rewards.registry import gradable

    with suppress(BadExtension):
        return _starting(incomplete, gradable())
    return []


def methods(incomplete: str) -> list[str]:
    """Complete the last name of a list with commas; those before it stay."""
    from ramify.evaluation.methods import DEFAULT, load_methods

    before, comma, last = incomplete.rpartition(",")
    known = [DEFAULT.name, *(method.name for method in load_methods()), *algorithms("")]
    return [f"{before}{comma}{name}" for name in _starting(last, dict.fromkeys(known))]


def trees(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """`last`, the newest seqs, and the ids that start so."""
    from ramify.cli.tree_source import source

    typed: dict[str, Any] = ctx.params
    rows = []
    with _quietly(), source(*(typed.get(name) for name in ("log", "config", "server", "api_key"))) as log:
        rows = log.newest(NEWEST)
    offered = [("last", "the newest"), *((str(row.seq), row.prompt.strip()) for row in rows)]
    if incomplete.startswith("tree_"):
        offered = [(row.id, row.prompt.strip()) for row in rows]
    return [(name, word) for name, word in offered if name.startswith(incomplete)]


def releases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Releases in the directory that `--root` names."""
    from ramify.weights import list_releases, shipped

    with suppress(OSError):
        return _starting(incomplete, list_releases(Path(ctx.params.get("root") or shipped().parent)))
    return []


def _starting(incomplete: str, names: Any) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


@contextmanager
def _quietly() -> Iterator[None]:
    was, errors.quiet = errors.quiet, True
    try:
        with suppress(typer.Exit):
            yield
    finally:
        errors.quiet = was
