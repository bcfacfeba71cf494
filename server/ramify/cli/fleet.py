"""`ramify fleet`: see the replicas of a fleet, and take an evicted one back, through any replica's admin listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.releases import Admin, Key
from ramify.cli.terminal import AsJson, console, print_json

if TYPE_CHECKING:
    from ramify_client.results import Fleet

app = typer.Typer(
    help="A fleet: servers that serve one release. `releases activate` on one of them activates on all.",
    no_args_is_help=True,
)


@app.command()
def status(admin: Admin = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show what the fleet serves, its last activation, and where each replica stands."""
    from ramify.cli.http import administering

    with administering(admin, key) as client:
        found = client.fleet()
    if as_json:
        print_json(found.model_dump())
        return
    _show(found)


@app.command()
def restore(
    replica: Annotated[str, typer.Argument(help="Id of an evicted replica, as `fleet status` lists it.")],
    admin: Admin = None,
    key: Key = None,
) -> None:
    """Take an evicted replica back: it catches up, and is ready then."""
    from ramify.cli.http import administering

    with administering(admin, key) as client:
        _show(client.restore(replica))


def _show(found: Fleet) -> None:
    from rich.table import Table

    served, newest = found.committed, found.newest
    console.print(f"{found.name} serves {served.release} (epoch {served.number})", highlight=False)
    if newest.number != served.number:
        why = f": {newest.error}" if newest.error else ""
        state = newest.state.replace("_", " ")
        console.print(f"epoch {newest.number}, {newest.release}, {state}{why}", highlight=False, markup=False)
    table = Table("replica", "number", "address", "status", "epoch", "took", "failures", "error")
    for row in found.replicas:
        took = "" if row.seconds is None else f"{row.seconds['total']:.1f} s"
        table.add_row(
            row.id,
            "" if row.number is None else str(row.number),
            row.address,
            row.status,
            str(row.epoch),
            took,
            str(row.failures or ""),
            row.error or "",
        )
    console.print(table)
