"""`ramify releases`: what can be served, and whether its files are what they were published as."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ramify.cli import completion
from ramify.cli.output import AsJson, console, fail, print_json
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
    str | None,
    typer.Argument(
        help="Id (v000001) or directory of a release; none: the newest.", autocompletion=completion.releases
    ),
]


@app.command("list")
def list_(root: Root = None, as_json: AsJson = False) -> None:
    """The complete releases of a directory, oldest first. `releases status` lists those of a running server."""
    from rich.table import Table

    from ramify.weights import WeightsError, list_releases, load_release

    folder = _root(root)
    if as_json:
        print_json([_described(folder / release_id) for release_id in list_releases(folder)])
        return
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


def _described(path: Path) -> dict[str, Any]:
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
    """One release's manifest."""
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
