"""`ramify trees`: read the log of searched trees, beside a running server or without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ramify.cli.output import console, errors, fail, refuse

if TYPE_CHECKING:
    from ramify.search.tree import Tree
    from ramify.treelog import Filters, Record, TreeLog

app = typer.Typer(help="The log of searched trees: list, show, verify, export, dot.", no_args_is_help=True)

Log = Annotated[
    str | None, typer.Option(help="The log: a file, or a PostgreSQL URL; none: the settings' own.")
]
Config = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="TOML file of settings.")]
TreeId = Annotated[str, typer.Argument(help="Its id (tree_… or srch_…), or `last`.")]


@app.command("list")
def list_(
    log: Log = None,
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    algorithm: Annotated[str | None, typer.Option(help="Of this algorithm only.")] = None,
    release: Annotated[str | None, typer.Option(help="Of this release only.")] = None,
    text: Annotated[str | None, typer.Option(help="With this in prompt or answer.")] = None,
) -> None:
    """The newest trees."""
    from rich.markup import escape
    from rich.table import Table

    from ramify.treelog import Filters

    rows = _run(_newest(_url(log, config), limit, Filters(algorithm=algorithm, release=release, text=text)))
    table = Table("seq", "id", "when", "status", "algorithm", "nodes", "tokens", "value", "prompt", "answer")
    for row in rows:
        when = datetime.fromtimestamp(row.created_at, UTC).strftime("%m-%d %H:%M:%S")
        value = "" if row.best_value is None else f"{row.best_value:.2f}"
        table.add_row(
            *(
                str(row.seq),
                row.tree_id,
                when,
                row.status,
                row.algorithm,
                str(row.n_nodes),
                str(row.n_tokens),
            ),
            *(value, escape(row.prompt.strip()), escape(row.answer or "")),
        )
    console.print(table if rows else "no trees yet: ask the server something")


@app.command()
def show(
    tree: TreeId,
    log: Log = None,
    config: Config = None,
    branches: Annotated[int, typer.Option(min=1, help="Branches shown at each node.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="The whole tree as JSON.")] = False,
) -> None:
    """One tree, drawn: its most visited branches, what the search thought of them, what came of them."""
    from ramify.cli.search import show as draw
    from ramify.search.codec import tree_to_dict

    found = _run(_one(_url(log, config), tree))
    if as_json:
        console.print_json(json.dumps(tree_to_dict(found)))
    else:
        draw(found, branches)


@app.command()
def dot(tree: TreeId, log: Log = None, config: Config = None) -> None:
    """One tree for Graphviz:  ramify trees dot last | dot -Tsvg > tree.svg"""
    from ramify.api.dot import dot as written

    typer.echo(written(_run(_one(_url(log, config), tree))), nl=False)


@app.command()
def verify(log: Log = None, config: Config = None) -> None:
    """Derive every hash again, read every tree, compare every column with its body."""
    report = _run(_verify(_url(log, config)))
    for bad in report.bad:
        console.print(f"[red]✗[/] {bad.seq} {bad.tree_id}  {bad.problem}", highlight=False)
    if not report.ok:
        fail(f"{len(report.bad)} of {report.trees + report.outcomes} records are not what was written")
    console.print(
        f"[green]✓[/] {report.trees} trees and {report.outcomes} verdicts, up to seq {report.high_water}",
        highlight=False,
    )


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="File to write: .ndjson or .parquet.")],
    log: Log = None,
    config: Config = None,
    after: Annotated[int, typer.Option(min=0, help="Only what was logged after this seq.")] = 0,
    form: Annotated[
        Literal["ndjson", "parquet"] | None, typer.Option("--format", help="None: by the file's ending.")
    ] = None,
) -> None:
    """Trees and later verdicts as a file."""
    chosen = form or target.suffix.removeprefix(".")
    if chosen not in ("ndjson", "parquet"):
        refuse(f"{target} ends in neither .ndjson nor .parquet", "say which with --format")
    if not target.absolute().parent.is_dir():
        refuse(f"there is no folder {target.parent}")
    count, corrupt = _run(_export(_url(log, config), target, chosen, after))
    console.print(f"{count} records in {target}", highlight=False)
    if corrupt:
        errors.print(f"{corrupt} of them are corrupt: `ramify trees verify` says why", highlight=False)


def _url(log: str | None, config: Path | None) -> str:
    from ramify.settings import BadSettings, load

    try:
        return load(config, log=log).log
    except BadSettings as error:
        refuse(error)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    from ramify.treelog import LogError

    try:
        return asyncio.run(work)
    except LogError as error:
        fail(error, "name the log with --log FILE, such as the one that ramify serve was given")


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[TreeLog]:
    from ramify.treelog import TreeLog

    async with await TreeLog.open(url, read_only=True) as log:
        yield log


async def _newest(url: str, limit: int, filters: Filters) -> Any:
    async with _opened(url) as log:
        return await log.list(limit=limit, filters=filters)


async def _one(url: str, name: str) -> Tree:
    from ramify.service.ids import tree_id
    from ramify.treelog import UnknownTree

    async with _opened(url) as log:
        if name == "last":
            rows = await log.list(limit=1)
            if not rows:
                raise UnknownTree("the log has no trees yet")
            wanted: str | None = rows[0].tree_id
        else:
            wanted = tree_id(name)
        entry = await log.get(wanted) if wanted else None
        if entry is None:
            raise UnknownTree(f"no tree {name!r} in the log")
        return entry.tree()


async def _verify(url: str) -> Any:
    async with _opened(url) as log:
        with errors.status("verifying …") as status:
            return await log.verify(lambda seq, last: status.update(f"verifying … {seq} of {last}"))


async def _export(url: str, target: Path, form: str, after: int) -> tuple[int, int]:
    """How many records were written, and how many of them are corrupt."""
    from ramify.treelog import export_ndjson, export_parquet

    async with _opened(url) as log:
        write = export_ndjson if form == "ndjson" else export_parquet
        with errors.status("exporting …") as status:
            corrupt = 0

            async def records() -> AsyncIterator[Record]:
                nonlocal corrupt
                async for record in log.read(after):
                    corrupt += record.kind == "corrupt"
                    yield record

            written = await write(records(), target, lambda n, seq: status.update(f"exporting … {n} records"))
            return written, corrupt
