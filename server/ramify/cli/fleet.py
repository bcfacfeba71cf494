"""`ramify fleet`: see the replicas of a fleet, and take an evicted one back, through any replica's admin listener; have
Ray start and end a fleet.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.releases import Admin, Key
from ramify.cli.terminal import AsJson, console, fail, print_json, refuse

if TYPE_CHECKING:
    from ramify.cluster.file import Plan
    from ramify_client.results import Fleet

app = typer.Typer(
    help="A fleet: servers that serve one release. `releases activate` on one of them activates on all.",
    no_args_is_help=True,
)
Config = Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The fleet file.")]


@app.command()
def up(config: Config) -> None:
    """Have Ray start a fleet, or change the one that runs; say why not before anything is started.

    Without ray.address in the file it starts Ray on this machine, and both end with this command."""
    from ramify.treelog import LogError

    plan = _plan(config)
    with _on_ray(plan, own=True) as deployment:
        try:
            with console.status("starting …") as shown:
                deployment.up(plan, lambda line: shown.update(line))
        except LogError as error:
            refuse(error)
        door = plan.file.door
        host = f"[{door.host}]" if ":" in door.host else door.host
        console.print(
            f"{plan.file.name} is served at http://{host}:{door.port}\n"
            f"  admin    http://127.0.0.1:{door.admin_port}\n"
            f"  metrics  http://{host}:{door.metrics_port}/metrics",
            highlight=False,
        )
        if plan.file.ray.address is None:
            _until_told(lambda: deployment.running(plan))
            deployment.down(plan)


@app.command()
def down(config: Config) -> None:
    """Drain every replica of a fleet on Ray, and end it."""
    plan = _plan(config)
    with _on_ray(plan, own=False) as deployment:
        if not deployment.running(plan):
            refuse(f"Ray runs no fleet {plan.file.name}")
        deployment.down(plan)


@app.command()
def status(
    admin: Admin = None,
    key: Key = None,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Fleet file of a fleet on Ray: also shows what Ray says of it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what the fleet serves, its last activation, and where each replica stands."""
    from ramify.cli.http import administering

    if config is not None:
        plan = _plan(config)
        if not as_json:
            with _on_ray(plan, own=False) as deployment:
                console.print(deployment.said(plan), highlight=False, markup=False)
        admin = admin or f"http://127.0.0.1:{plan.file.door.admin_port}"
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


def _plan(config: Path) -> Plan:
    from ramify.cluster.file import read_plan
    from ramify.settings import BadSettings

    try:
        return read_plan(config)
    except BadSettings as error:
        refuse(error)


@contextmanager
def _on_ray(plan: Plan, *, own: bool) -> Iterator[ModuleType]:
    """Connect to the fleet's cluster (own: or to one of this command's own if the file names none); exit with a message
    if there is none, or the fleet does not start on it."""
    from ramify.fleet import FleetError

    try:
        from ramify.cluster import deployment
        from ramify.ray_cluster import ClusterError, connected
    except ModuleNotFoundError as missing:
        refuse(f"a fleet on Ray needs the extra fleet ({missing})", "pip install '.[fleet]' in a checkout")
    ray = plan.file.ray
    cluster = connected(
        ray.address, setting="ray.address", own=own, cpus=ray.cpus, gpus=ray.gpus, guest=not own
    )
    try:
        with cluster:
            yield deployment
    except (FleetError, ClusterError) as error:
        fail(error)


def _until_told(runs: Callable[[], bool]) -> None:
    """Wait for a signal, or until `runs` says that the fleet was ended elsewhere."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(1.0) and runs():
        pass


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
