"""`ramify demo`: serve the shipped models, solve held-out problems three ways at equal tokens, show what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli.terminal import console, ended_as_interrupted, errors, fail

if TYPE_CHECKING:
    from ramify.evaluation.budgets import Budget
    from ramify.evaluation.rows import Row
    from ramify.evaluation.summary import Summary
    from ramify.rewards.verifier import Example
    from ramify.search.tree import Tree

METHODS = ["greedy", "self_consistency", "best_of_n", "best_of_n_cool", "default"]
SPEAKING = {
    "greedy": "greedy decoding",
    "self_consistency": "self-consistency",
    "best_of_n": "best of N, same judge",
    "best_of_n_cool": "the same, cooler",
    "default": "tree search, nothing set",
}
BUDGETS = ["300", "1000"]
"""Generated tokens."""
DATA = "countdown:test"
CONCURRENCY = 32


def demo(
    problems: Annotated[int, typer.Option(min=1, help="How many held-out problems.")] = 50,
    release: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Release to serve; none: the shipped one."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for log, table and plot; none: runs/demo/<time>.")
    ] = None,
) -> None:
    """Serve the demo model, solve held-out Countdown problems by it, and say how to go on. Two or three minutes."""
    from ramify.engines.progress import SAID
    from ramify.evaluation.provenance import is_shipped
    from ramify.evaluation.runner import SearchFailed
    from ramify.launcher import NotServing, launched

    folder = out or Path("runs/demo") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--log", str(folder / "trees.db")] + (["--release", str(release)] if release else [])
    console.print(
        "Countdown: reach the target with every number once. The demo model proposes steps and judges them,\n"
        "and tree search decides where to look further.\n"
    )
    try:
        with ended_as_interrupted(), errors.status("starting the server …") as status:

            def tell(seconds: float, line: str) -> None:
                status.update(line if line.startswith(SAID) else f"starting the server … {seconds:.0f} s")

            with launched(flags, folder / "server.log", tell) as server:
                status.stop()
                summary, tree = asyncio.run(_measure(server.url, problems, folder, tuned=is_shipped(release)))
    except (NotServing, SearchFailed) as error:
        fail(error, f"the whole of it is in {folder / 'server.log'}")
    except KeyboardInterrupt:
        fail("stopped; the server has been ended", code=130)
    _show(summary, tree, folder)


async def _measure(address: str, count: int, folder: Path, *, tuned: bool) -> tuple[Summary, Tree]:
    from ramify.cli.progress import Watch
    from ramify.evaluation.backends import connect
    from ramify.evaluation.budgets import parse_budgets
    from ramify.evaluation.methods import load_methods
    from ramify.evaluation.plot import plot
    from ramify.evaluation.report import write
    from ramify.evaluation.runner import run, schedule, seed_of
    from ramify.evaluation.summary import summarise
    from ramify.rewards.datasets import load

    methods = load_methods(names=METHODS, tuned=tuned)
    taken = load(DATA, count, seed=0)
    budgets = parse_budgets(BUDGETS)
    work = schedule(taken, methods, budgets, CONCURRENCY)
    rows: list[Row] = []
    async with connect(address, None) as backend:
        with Watch(sum(map(len, work)), methods, budgets) as watch:

            def observe(new: Sequence[Row]) -> None:
                rows.extend(new)
                watch.add(new)

            await run(backend, work, seed=0, concurrency=CONCURRENCY, observe=observe)
        example = _showcase(taken, [row for row in rows if row.budget == budgets[0]])
        grown = await backend.grow(example, methods[-1], budgets[0], seed_of(example, 0))
    summary = summarise(rows, METHODS, METHODS[:-1])
    write(
        folder,
        summary,
        {"command": "ramify demo", "data": DATA, "problems": count, "budgets": BUDGETS},
        count,
    )
    plot(summary, folder)
    return summary, grown.tree


def _showcase(taken: Sequence[Example], rows: Sequence[Row]) -> Example:
    """A problem that search solved and greedy decoding did not, if there is one. rows: of one budget."""
    right = {(row.problem, row.method) for row in rows if row.correct}
    for index, problem in enumerate(taken):
        if (index, METHODS[-1]) in right and (index, METHODS[0]) not in right:
            return problem
    return taken[0]


def _show(summary: Summary, tree: Tree, folder: Path) -> None:
    from rich.table import Table

    from ramify.cli.tree_view import show

    group = summary.groups[-1]
    n = max(f.accuracy.n for f in summary.figures if f.group == group)
    table = Table(
        title=f"{n} held-out problems of 4, 5 and 6 numbers", title_justify="left", title_style="bold"
    )
    for name in ("method", "tokens allowed", "tokens spent", "seconds", "right"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for budget in summary.budgets:
        for method in summary.methods:
            alike = method == METHODS[0]
            figure = summary.figure(group, method, max(summary.budgets) if alike else budget)
            if figure is not None and not (alike and budget > min(summary.budgets)):
                table.add_row(*_cells(method, budget, figure, n))
        table.add_section()
    console.print(table)
    console.print(
        "[dim]Means a problem; seconds are of one search among 32 at once. A dash: read off the longer search.[/]\n"
    )
    console.print(
        "[bold]One of these trees[/]  (N visits, Q mean outcome, v the value estimate, ★ the answer)"
    )
    show(tree, branches=3)
    console.print(_what_next(folder), highlight=False)


def _cells(method: str, budget: Budget, figure: Any, n: int) -> list[str]:
    right = f"{figure.accuracy.mean * n:.0f} of {n}  ({100 * figure.accuracy.mean:.0f} %)"
    seconds = "–" if figure.seconds is None else f"{figure.seconds:.2f}"
    allowed = "–" if method == METHODS[0] else str(budget)
    return [SPEAKING[method], allowed, f"{figure.tokens:.0f}", seconds, right]


def _what_next(folder: Path) -> str:
    from ramify.cli.terminal import command

    ramify = command()
    return f"""
[bold]What is left of it[/]
  every searched tree     {folder}/trees.db        {ramify} trees list --log {folder}/trees.db
  table and figures       {folder}/results.md, results.json
  plot                    {folder}/accuracy.png
  the server's own log    {folder}/server.log

[bold]Ask it something yourself[/]
  {ramify} serve
  {ramify} search "3 5 7 8 to 24"          (in another terminal)
  curl -s http://127.0.0.1:8000/v1/search -H 'content-type: application/json' -d '{{"prompt": "3 5 7 8 to 24"}}'
"""
