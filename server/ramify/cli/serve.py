"""`ramify serve`: the server, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ramify.cli.terminal import refuse


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [8000]")] = None,
    release: Annotated[Path | None, typer.Option(help="Directory of the release to serve.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of releases that may be activated while it serves.")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Port of the admin listener; 0 takes a free one. [8001]")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="A causal language model to serve, with --value or --value-head.")
    ] = None,
    policy_url: Annotated[
        str | None,
        typer.Option(
            help="A vLLM server that has the policy; --policy then needs no weights, only tokenizer and config.json."
        ),
    ] = None,
    value: Annotated[str | None, typer.Option(help="A one-label sequence classifier, with --policy.")] = None,
    value_head: Annotated[
        Path | None,
        typer.Option(help="A file with a linear value head on the policy's trunk, in place of --value."),
    ] = None,
    model_name: Annotated[str | None, typer.Option(help="Name under which the model is served.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of requests that name none.")] = None,
    log: Annotated[str | None, typer.Option(help="The tree log: a file, or a PostgreSQL URL.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML file of settings; flags win over it."),
    ] = None,
) -> None:
    """Serve a release, the shipped demo model by default. docs/configuration.md has every other setting."""
    from ramify.settings import BadSettings, load

    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "release": release,
        "weights": weights,
        "admin": None if admin_port is None else {"port": admin_port},
        "policy": policy,
        "policy_server": None if policy_url is None else {"url": policy_url},
        "value": value,
        "value_head": value_head,
        "model_name": model_name,
        "task": task,
        "log": log,
        "log_level": log_level,
    }
    try:
        settings = load(config, **flags)
    except BadSettings as error:
        refuse(error)
    from ramify.api.server import serve as run

    raise typer.Exit(run(settings))
