"""`ramify releases status | activate | rollback`: the releases of a running server, through its admin listener."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import typer

from ramify.cli.http import checked, client, translated
from ramify.cli.output import console

Admin = Annotated[str, typer.Option(envvar="RAMIFY_ADMIN_URL", help="Address of the admin listener.")]
Key = Annotated[
    str | None, typer.Option(envvar="RAMIFY_CLIENT_ADMIN_KEY", help="The admin key, where there is one.")
]
Deadline = Annotated[
    float,
    typer.Option(min=0, max=3600, help="Seconds that running searches may go on before they are stopped."),
]
Note = Annotated[str, typer.Option(help="Why; kept in the history.")]
DEFAULT = "http://127.0.0.1:8001"
KEY_FLAG = "--key, or RAMIFY_CLIENT_ADMIN_KEY"
LOADING = 900.0
"""Seconds beyond the deadline that loading weights may take."""


def status(admin: Admin = DEFAULT, key: Key = None) -> None:
    """What a running server serves, what it could serve, and what it has served."""
    from rich.table import Table

    with translated(admin, KEY_FLAG), client(admin, key) as http:
        listing: dict[str, Any] = checked(http.get("/admin/releases")).json()
    table = Table("release", "state", "parent", "step", "on disk")
    for row in listing["data"]:
        name = f"[bold]{row['id']} (active)[/]" if row["active"] else row["id"]
        step = "" if row["training_step"] is None else str(row["training_step"])
        table.add_row(name, row["state"], row["parent"] or "", step, "yes" if row["on_disk"] else "no")
    console.print(table)
    console.print(
        f"a rollback goes to {listing['previous'] or 'nothing: there was none before'}", highlight=False
    )
    for row in listing["activations"][:10]:
        console.print(f"  {row['release']}  {row['kind']}  {row['note']}", highlight=False, markup=False)


def activate(
    release: Annotated[str, typer.Argument(help="Id, such as v000002.")],
    admin: Admin = DEFAULT,
    key: Key = None,
    deadline: Deadline = 30.0,
    note: Note = "",
) -> None:
    """Have a running server serve another release."""
    _ask(admin, key, f"/admin/releases/{release}/activate", deadline, note)


def rollback(admin: Admin = DEFAULT, key: Key = None, deadline: Deadline = 30.0, note: Note = "") -> None:
    """Have a running server serve the release that was active before."""
    _ask(admin, key, "/admin/releases/rollback", deadline, note)


def _ask(admin: str, key: str | None, path: str, deadline: float, note: str) -> None:
    body = {"deadline_seconds": deadline, "note": note}
    wait = httpx.Timeout(deadline + LOADING, connect=5.0)
    with translated(admin, KEY_FLAG), client(admin, key) as http, console.status("activating …"):
        done: dict[str, Any] = checked(http.post(path, json=body, timeout=wait)).json()
    canary = done["canary"]
    console.print(
        f"{done['release']} is served (before: {done['previous']}) after {done['seconds']['total']:.1f} s; "
        f"{canary['distinguishable']} of {canary['probes']} probes tell it from the release before",
        highlight=False,
    )
