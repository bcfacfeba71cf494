"""The terminal: what the commands write to it, how they complain, and what a signal from it does."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

WIDE = 180
"""Columns if no terminal sets them: in a pipe, a log, a test."""
ENDINGS = (signal.SIGTERM, signal.SIGHUP)

console = Console(width=None if sys.stdout.isatty() else WIDE)
"""Standard output: results."""
errors = Console(stderr=True)
"""Standard error: complaints and progress."""

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def print_json(content: Any) -> None:
    """Write JSON to standard output, plain: what a program reads must not depend on the terminal."""
    typer.echo(json.dumps(content, indent=2))


def fail(message: object, *advice: str, code: int = 1) -> NoReturn:
    """Print what was wrong and what to do, and exit with `code`."""
    errors.print(f"[bold red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    for line in advice:
        errors.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def refuse(message: object, *advice: str) -> NoReturn:
    """Fail with exit code 2: the command was given wrongly."""
    fail(message, *advice, code=2)


def command() -> str:
    """Return how to call `ramify` in advice: by its name if the shell finds this one, else by its path from here."""
    script = Path(sys.executable).with_name("ramify")
    on_path = shutil.which("ramify")
    if on_path and Path(on_path).resolve() == script.resolve():
        return "ramify"
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does, so that `finally` blocks run: what must be
    ended is ended, what was measured is kept."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
