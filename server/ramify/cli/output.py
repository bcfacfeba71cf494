"""Where the commands write, and how they say what went wrong."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

WIDE = 180
"""Columns where nobody's terminal sets them: in a pipe, a log, a test."""

console = Console(width=None if sys.stdout.isatty() else WIDE)
"""What was asked for."""
errors = Console(stderr=True)
"""Complaints and progress."""

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def print_json(content: Any) -> None:
    """Write JSON to standard output, plain: what a program reads must not depend on the terminal."""
    typer.echo(json.dumps(content, indent=2))


def fail(message: object, *advice: str, code: int = 1) -> NoReturn:
    """Say what was wrong and what to do, and leave with `code` (2: the command was given wrongly)."""
    errors.print(f"[bold red]error:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    for line in advice:
        errors.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def refuse(message: object, *advice: str) -> NoReturn:
    """`fail` for a command that was given wrongly."""
    fail(message, *advice, code=2)
