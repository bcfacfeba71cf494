"""`ramify releases status | activate | rollback`: the releases of a running server, through its admin listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.output import AsJson, console, print_json

if TYPE_CHECKING:
    from ramify_client.results import Activation

Admin = Annotated[
    str | None,
    typer.Option(
        envvar="RAMIFY_ADMIN_URL", help="Address of the admin listener; none: http://127.0.0.1:8001."
    ),
]
Key = Annotated[
    str | None, typer.Option(envvar="RAMIFY_ADMIN__KEY", help="The admin key, if the server has one.")
]
Deadline = Annotated[
    float,
    typer.Option(min=0, max=3600, help="Seconds that running searches may go on before they are stopped."),
]
Note = Annotated[str, typer.Option(help="Why; kept in the history.")]
LOADING = 900.0
"""Seconds beyond the deadline that loading weights may take."""


def status(admin: Admin = None, key: Key = None, as_json: AsJson = False) -> None:
    """What a running server serves, what it could serve, and what it has served."""
    from rich.table import Table

    from ramify.cli.http import administering

    with administering(admin, key) as client:
        listing = client.releases()
    if as_json:
        print_json(listing.model_dump())
        return
    table = Table("release", "state", "parent", "step", "on disk")
    for row in listing.data:
        name = f"[bold]{row.id} (active)[/]" if row.active else row.id
        step = "" if row.training_step is None else str(row.training_step)
        table.add_row(name, row.state, row.parent or "", step, "yes" if row.on_disk else "no")
    console.print(table)
    console.print(
        f"a rollback goes to {listing.previous or 'nothing: there was none before'}", highlight=False
    )
    for past in listing.activations[:10]:
        console.print(f"  {past.release}  {past.kind}  {past.note}", highlight=False, markup=False)


def activate(
    release: Annotated[str, typer.Argument(help="Id, such as v000002.")],
    admin: Admin = None,
    key: Key = None,
    deadline: Deadline = 30.0,
    note: Note = "",
) -> None:
    """Have a running server serve another release."""
    from ramify.cli.http import administering

    with administering(admin, key, deadline + LOADING) as client, console.status("activating …"):
        done = client.activate(release, deadline_seconds=deadline, note=note)
    _say(done)


def rollback(admin: Admin = None, key: Key = None, deadline: Deadline = 30.0, note: Note = "") -> None:
    """Have a running server serve the release that was active before."""
    from ramify.cli.http import administering

    with administering(admin, key, deadline + LOADING) as client, console.status("activating …"):
        done = client.rollback(deadline_seconds=deadline, note=note)
    _say(done)


def _say(done: Activation) -> None:
    console.print(
        f"{done.release} is served (before: {done.previous}) after {done.seconds['total']:.1f} s; "
        f"{done.canary.distinguishable} of {done.canary.probes} probes tell it from the release before",
        highlight=False,
    )
