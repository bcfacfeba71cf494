"""`ramify releases`: what can be served, and whether its files are what they were published as."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ramify.cli.output import console, fail
from ramify.cli.releases_live import activate, rollback, status

app = typer.Typer(
    help="Releases: on disk (list, show, verify) and in a running server (status, activate, rollback).",
    no_args_is_help=True,
)
app.command()(status)
app.command()(activate)
app.command()(rollback)

Root = Annotated[
    Path | None, typer.Option(help="Directory of releases; none: those shipped with the package.")
]
Named = Annotated[
    str | None, typer.Argument(help="Id (v000001) or directory of a release; none: the newest.")
]


@app.command("list")
def list_(root: Root = None) -> None:
    """The complete releases of a directory, oldest first."""
    from rich.table import Table

    from ramify.weights import WeightsError, list_releases, load_release

    folder = _root(root)
    table = Table(
        "release",
        "name",
        "parent",
        "task",
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
            f"{manifest.created_at:%Y-%m-%d %H:%M}",
            str(manifest.training_step),
            f"{size:.1f}",
        )
    if not table.row_count:
        fail(f"no complete release in {folder}", "name another directory with --root")
    console.print(table)


@app.command()
def show(release: Named = None, root: Root = None) -> None:
    """One release's manifest."""
    from ramify.weights import WeightsError, load_release

    try:
        manifest = load_release(_path(release, root), verify=False).manifest
    except WeightsError as error:
        fail(error, "see what there is:  ramify releases list")
    console.print_json(manifest.model_dump_json(exclude={"canary"}))
    console.print(f"canary: {len(manifest.canary)} probes", highlight=False)


@app.command()
def verify(release: Named = None, root: Root = None) -> None:
    """Derive every hash of a release again; of all releases where none is named."""
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
