"""The line that follows a running search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text


def status(progress: Mapping[str, Any] | None) -> RenderableType:
    """A spinner with the figures of a `search.progress` event, and the best answer so far under it."""
    if progress is None:
        return Spinner("dots", Text("searching …"))
    line = (
        f"{progress['simulations']} simulations, {progress['tokens']} tokens, {progress['nodes']} nodes, "
        f"{progress['seconds']:.1f} s"
    )
    best = progress.get("answer")
    if not best:
        return Spinner("dots", Text(line))
    value = "" if best.get("value") is None else f" [dim](value {best['value']:.2f})[/]"
    text = escape(str(best.get("final") or best["text"]).strip())
    return Group(Spinner("dots", Text(line)), Text.from_markup(f"  best so far: [cyan]{text}[/]{value}"))
