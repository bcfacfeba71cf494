"""`ramify releases`: list, show and verify those on disk; see, activate and roll back those of a running server.

A running server is reached through its admin listener."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import completion
from ramify.cli.terminal import AsJson, console, fail, print_json, refuse

if TYPE_CHECKING:
    from ramify_client.results import Activation

app = typer.Typer(
    help="Releases: on disk (list, show, verify) and in a running server (status, activate, rollback).",
    no_args_is_help=True,
)

Root = Annotated[
    Path | None, typer.Option(help="Directory of releases; none: those shipped with the package.")
]
Named = Annotated[
    str | None,
    typer.Argument(
        help="Id (v000001) or directory of a release; none: the newest.", autocompletion=completion.releases
    ),
]

Admin = Annotated[
    str | None,
    typer.Option(
        envvar="RAMIFY_ADMIN_URL", help="Address of the admin listener; none: http://127.0.0.1:8001."
    ),
]
Key = Annotated[
    str | None, typer.Option(envvar="RAMIFY_ADMIN__KEY", help="The admin key, if the server has one.")
]
Server = Annotated[
    str | None, typer.Option(help="Ask a server's public address, http://…, in place of its admin listener.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="RAMIFY_API_KEY", help="With --server: an API key with the scope `log`."),
]
Deadline = Annotated[
    float,
    typer.Option(min=0, max=3600, help="Seconds that running searches may go on before they are stopped."),
]
Note = Annotated[str, typer.Option(help="Why; kept in the history.")]
Mode = Annotated[
    str | None,
    typer.Option(
        help="In a fleet: rolling (the default), or barrier, so that no two releases are served at once."
    ),
]
LOADING = 900.0
"""Seconds beyond the deadline that loading weights may take."""


@app.command("list")
def list_(root: Root = None, as_json: AsJson = False) -> None:
    """List the complete releases of a directory, oldest first. `releases status` lists those of a running server."""
    from rich.table import Table

    from ramify.weights import WeightsError, list_releases, load_release

    folder = _root(root)
    if as_json:
        print_json([_summary(folder / release_id) for release_id in list_releases(folder)])
        return
    table = Table(
        "release",
        "name",
        "parent",
        "task",
        "value",
        "published",
        "step",
        "MB",
        title=str(folder),
        title_justify="left",
    )
    for release_id in list_releases(folder):
        try:
            manifest = load_release(folder / release_id, verify=False).manifest
        except WeightsError as error:
            table.add_row(release_id, f"[red]{error}[/]")
            continue
        size = sum(file.size for file in manifest.files.values()) / 1e6
        table.add_row(
            release_id,
            manifest.name,
            manifest.parent or "",
            manifest.default_task or "",
            manifest.value,
            f"{manifest.created_at:%Y-%m-%d %H:%M}",
            str(manifest.training_step),
            f"{size:.1f}",
        )
    if not table.row_count:
        fail(f"no complete release in {folder}", "name another directory with --root")
    console.print(table)


def _summary(path: Path) -> dict[str, Any]:
    """A release's manifest without its probes and files, or what is wrong with it."""
    from ramify.weights import WeightsError, load_release

    try:
        manifest = load_release(path, verify=False).manifest
    except WeightsError as error:
        return {"id": path.name, "error": str(error)}
    return manifest.model_dump(mode="json", exclude={"canary", "files"}) | {
        "bytes": sum(file.size for file in manifest.files.values())
    }


@app.command()
def show(release: Named = None, root: Root = None, as_json: AsJson = False) -> None:
    """Print a release's manifest."""
    from ramify.weights import WeightsError, load_release

    try:
        manifest = load_release(_path(release, root), verify=False).manifest
    except WeightsError as error:
        fail(error, "see what there is:  ramify releases list")
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    console.print_json(manifest.model_dump_json(exclude={"canary"}))
    console.print(f"canary: {len(manifest.canary)} probes", highlight=False)


@app.command()
def verify(release: Named = None, root: Root = None) -> None:
    """Check a release's files against the hashes that it was published with; without a name, of all releases."""
    from ramify.weights import WeightsError, list_releases, load_release

    folder = _root(root)
    paths = [_path(release, root)] if release else [folder / name for name in list_releases(folder)]
    if not paths:
        fail(f"no complete release in {folder}", "name another directory with --root")
    bad = 0
    for path in paths:
        try:
            checked = load_release(path)
        except WeightsError as error:
            bad += 1
            console.print(f"[red]✗[/] {path.name}  {error}", highlight=False)
        else:
            console.print(f"[green]✓[/] {path.name}  {len(checked.manifest.files)} files", highlight=False)
    if bad:
        fail(f"{bad} of {len(paths)} releases must not be served", "publish them again, or remove them")


def _root(root: Path | None) -> Path:
    from ramify.weights import shipped

    return root or shipped().parent


def _path(release: str | None, root: Path | None) -> Path:
    from ramify.weights import list_releases

    folder = _root(root)
    if release is None:
        names = list_releases(folder)
        if not names:
            fail(f"no complete release in {folder}", "name another directory with --root")
        return folder / names[-1]
    return Path(release) if Path(release).is_dir() or "/" in release else folder / release


@app.command()
def status(
    admin: Admin = None,
    key: Key = None,
    server: Server = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show the release that a running server serves, those it could serve, and those it has served."""
    from rich.table import Table

    from ramify.cli.http import administering, asking

    if server is not None:
        if admin is not None:
            refuse("--server goes without --admin: each names the server to ask")
        with asking(server, api_key, otherwise="releases list") as client:
            listing = client.releases()
    else:
        with administering(admin, key) as operator:
            listing = operator.releases()
    if as_json:
        print_json(listing.model_dump())
        return
    table = Table("release", "state", "parent", "value", "step", "on disk")
    for row in listing.data:
        name = f"[bold]{row.id} (active)[/]" if row.active else row.id
        step = "" if row.training_step is None else str(row.training_step)
        table.add_row(
            name, row.state, row.parent or "", row.value or "", step, "yes" if row.on_disk else "no"
        )
    console.print(table)
    console.print(
        f"a rollback goes to {listing.previous or 'nothing: there was none before'}", highlight=False
    )
    for past in listing.activations[:10]:
        console.print(f"  {past.release}  {past.kind}  {past.note}", highlight=False, markup=False)


@app.command()
def activate(
    release: Annotated[str, typer.Argument(help="Id, such as v000002.")],
    admin: Admin = None,
    key: Key = None,
    deadline: Deadline = 30.0,
    note: Note = "",
    mode: Mode = None,
) -> None:
    """Have a running server serve another release, or every server of its fleet."""
    from ramify.cli.http import administering

    with administering(admin, key, deadline + LOADING) as client, console.status("activating …"):
        done = client.activate(release, deadline_seconds=deadline, note=note, mode=mode)
    _say(done)


@app.command()
def rollback(
    admin: Admin = None, key: Key = None, deadline: Deadline = 30.0, note: Note = "", mode: Mode = None
) -> None:
    """Have a running server, or every server of its fleet, serve the release that was active before."""
    from ramify.cli.http import administering

    with administering(admin, key, deadline + LOADING) as client, console.status("activating …"):
        done = client.rollback(deadline_seconds=deadline, note=note, mode=mode)
    _say(done)


def _say(done: Activation) -> None:
    console.print(
        f"{done.release} is served (before: {done.previous}) after {done.seconds['total']:.1f} s; "
        f"{done.canary.distinguishable} of {done.canary.probes} probes tell it from the release before",
        highlight=False,
    )
    for row in done.replicas or ():
        console.print(
            f"  {row.address}  {row.status}  {row.error or ''}".rstrip(), highlight=False, markup=False
        )
