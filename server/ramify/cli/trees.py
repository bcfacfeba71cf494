"""`ramify trees`: read the log of searched trees, beside a running server or without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ramify.cli import completion
from ramify.cli.terminal import AsJson, console, errors, fail, print_json, refuse
from ramify.cli.tree_source import (
    log_advice,
    log_settings,
    read_only_log,
    resolve,
    source,
)

if TYPE_CHECKING:
    from rich.table import Table

    from ramify.settings import Settings
    from ramify.treelog import Consumer, ExpiryCounts, LogSize, Record
    from ramify_client.results import TreeSummary

app = typer.Typer(
    help="The log of searched trees: list, show, dot, verify, export, expire.", no_args_is_help=True
)

Log = Annotated[
    str | None, typer.Option(help="The log: a file, or a PostgreSQL URL; none: the settings' own.")
]
Config = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="TOML file of settings.")]
Server = Annotated[
    str | None, typer.Option(help="Read a running server's log, http://…, in place of the log itself.")
]
ApiKey = Annotated[str | None, typer.Option(envvar="RAMIFY_API_KEY", help="The server's API key.")]
TreeId = Annotated[
    str,
    typer.Argument(
        help="Its seq, its id or its search's, how the id starts, or `last`.", autocompletion=completion.trees
    ),
]
ROOMY = 120
"""Columns from which a listing shows whole ids."""


@app.command("list")
def list_(
    log: Log = None,
    config: Config = None,
    server: Server = None,
    api_key: ApiKey = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    algorithm: Annotated[
        str | None, typer.Option(help="Of this algorithm only.", autocompletion=completion.algorithms)
    ] = None,
    release: Annotated[str | None, typer.Option(help="Of this release only.")] = None,
    text: Annotated[str | None, typer.Option(help="With this in prompt or answer.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest trees. `trees show` and `trees dot` take a tree's seq or the start of its id."""
    with source(log, config, server, api_key) as trees:
        rows = trees.newest(limit, algorithm=algorithm, release=release, text=text)
    if as_json:
        print_json([row.model_dump() for row in rows])
    else:
        console.print(_table(rows) if rows else "no trees yet: ask the server something")


def _table(rows: Sequence[TreeSummary]) -> Table:
    """The seq comes first and whole; the id, which is long, only if there is room for it."""
    from rich.markup import escape
    from rich.table import Table

    roomy = console.width >= ROOMY
    table = Table()
    for name in ("seq", *(["id"] if roomy else []), "when"):
        table.add_column(name, no_wrap=True)
    for name in ("status", "algorithm", "nodes", "tokens", "value", "right", "prompt", "answer"):
        table.add_column(name)
    for row in rows:
        when = datetime.fromtimestamp(row.created, UTC).strftime("%m-%d %H:%M:%S")
        value = "" if row.value is None else f"{row.value:.2f}"
        table.add_row(
            *(str(row.seq), *([row.id] if roomy else []), when, row.status, row.algorithm),
            *(
                str(row.nodes),
                str(row.tokens),
                value,
                _verdict(row.outcome),
                escape(row.prompt.strip()),
                escape(row.answer or ""),
            ),
        )
    return table


def _verdict(outcome: float | None) -> str:
    """The latest verdict on the chosen answer; nothing if nobody judged it."""
    from ramify.cli.tree_view import RIGHT, WRONG

    return "" if outcome is None else RIGHT if outcome >= 1 else WRONG if outcome <= 0 else f"{outcome:.2f}"


@app.command()
def show(
    tree: TreeId,
    log: Log = None,
    config: Config = None,
    server: Server = None,
    api_key: ApiKey = None,
    branches: Annotated[int, typer.Option(min=1, help="Branches shown at each node.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Draw one tree: its most visited branches, what the search thought of them, what came of them."""
    from ramify.cli.tree_view import show as draw
    from ramify.search.codec import tree_from_dict

    with source(log, config, server, api_key) as trees:
        document, outcome = trees.get(resolve(trees, tree))
    if as_json:
        print_json(document)
    else:
        draw(tree_from_dict(document), branches, outcome)


@app.command()
def dot(
    tree: TreeId, log: Log = None, config: Config = None, server: Server = None, api_key: ApiKey = None
) -> None:
    """Print one tree for Graphviz:  ramify trees dot last | dot -Tsvg > tree.svg"""
    from ramify.api.wire_log import dot as written
    from ramify.search.codec import tree_from_dict

    with source(log, config, server, api_key) as trees:
        document, _ = trees.get(resolve(trees, tree))
    typer.echo(written(tree_from_dict(document)), nl=False)


@app.command()
def verify(log: Log = None, config: Config = None, as_json: AsJson = False) -> None:
    """Check the log: derive every hash again, read every tree, compare every column with its body."""
    report = _run(_verify(log_settings(log, config)))
    if as_json:
        print_json(asdict(report))
        raise typer.Exit(0 if report.ok else 1)
    for bad in report.bad:
        console.print(f"[red]✗[/] {bad.seq} {bad.tree_id}  {bad.reason}", highlight=False)
    if not report.ok:
        fail(f"{len(report.bad)} of {report.trees + report.outcomes} records are not what was written")
    console.print(
        f"[green]✓[/] {report.trees} trees and {report.outcomes} verdicts, up to seq {report.high_water}",
        highlight=False,
    )


@app.command()
def expire(
    log: Log = None,
    config: Config = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="Trees of this age go; none: the settings' own.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--bytes", min=0, help="The oldest go until the rest takes no more; none: the settings'."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete them; without it they are only counted.")
    ] = False,
) -> None:
    """Delete old trees that every registered consumer has read. A running server does it by its settings
    ([retention]); beside one on SQLite only the count can be had."""
    from ramify.service.retention import DAY

    settings = log_settings(log, config)
    if days is None and size is None:
        days, size = settings.retention.days, settings.retention.bytes
    if days is None and size is None:
        refuse("nothing says what to delete", "give --days or --bytes, or set [retention] in the settings")
    rules = {"older_than": None if days is None else days * DAY, "keep_bytes": size}
    if yes:
        done = _run(_expire(settings, rules))
        console.print(
            f"deleted {done.trees} trees and {done.feedback} records of feedback on them", highlight=False
        )
        return
    expirable, waiting = _run(_expirable(settings, rules))
    console.print(f"{expirable.trees} trees, {expirable.bytes} bytes; --yes deletes them", highlight=False)
    for consumer in waiting:
        console.print(f"consumer {consumer.name} has read up to {consumer.cursor}", highlight=False)


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
    """Write trees and later verdicts to a file."""
    chosen = form or target.suffix.removeprefix(".")
    if chosen not in ("ndjson", "parquet"):
        refuse(f"{target} ends in neither .ndjson nor .parquet", "say which with --format")
    if not target.absolute().parent.is_dir():
        refuse(f"no such folder: {target.parent}")
    count, corrupt = _run(_export(log_settings(log, config), target, chosen, after))
    console.print(f"{count} records in {target}", highlight=False)
    if corrupt:
        errors.print(f"{corrupt} of them are corrupt: `ramify trees verify` says why", highlight=False)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    from ramify.treelog import LogError

    try:
        return asyncio.run(work)
    except LogError as error:
        fail(error, *log_advice())


async def _verify(settings: Settings) -> Any:
    async with read_only_log(settings) as log:
        with errors.status("verifying …") as status:
            return await log.verify(lambda seq, last: status.update(f"verifying … {seq} of {last}"))


async def _expire(settings: Settings, rules: dict[str, Any]) -> ExpiryCounts:
    from ramify.treelog import TreeLog

    async with await TreeLog.open(settings.log, objects=settings.objects) as log:
        return await log.expire(**rules)


async def _expirable(settings: Settings, rules: dict[str, Any]) -> tuple[LogSize, Sequence[Consumer]]:
    """Count the trees that would go, and list the consumers that have still to read something."""
    async with read_only_log(settings) as log:
        last = await log.high_water()
        return await log.expirable(**rules), [c for c in await log.consumers() if c.cursor < last]


async def _export(settings: Settings, target: Path, form: str, after: int) -> tuple[int, int]:
    """Write the file; how many records it has, and how many of them are corrupt."""
    from ramify.treelog import export_ndjson, export_parquet

    async with read_only_log(settings) as log:
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
