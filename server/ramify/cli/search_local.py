"""A search in this process: engines start, search, and go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.live import Live

from ramify.cli.live import status
from ramify.cli.output import errors, refuse
from ramify.evaluation.local import open_release
from ramify.search.run import Progress, Search
from ramify.search.tree import Tree
from ramify.service.ask import Message, SearchSpec
from ramify.service.errors import ServiceError

EVERY = 0.1
"""Seconds between two looks at the progress."""


def ask_of(body: Mapping[str, Any]) -> SearchSpec:
    """A request's body as the service knows it."""
    return SearchSpec(
        prompt=body.get("prompt"),
        messages=tuple(Message(**message) for message in body.get("messages", ())),
        task=body.get("task", {}).get("name"),
        search=body["search"],
        seed=body.get("seed"),
    )


async def run_local(release: Path | None, body: Mapping[str, Any]) -> Tree:
    """Search one prompt of a request's body. Leaves with a message where a parameter is wrong."""
    async with open_release(release) as local:
        try:
            prepared = local.preparer.prepare(ask_of(body))
        except ServiceError as error:
            refuse(f"{error.param}: {error.message}")
        last = time.monotonic()
        with Live(status(None), console=errors, refresh_per_second=8, transient=True) as live:

            def observe(progress: Progress) -> None:
                nonlocal last
                if time.monotonic() - last > EVERY:
                    last = time.monotonic()
                    shown = asdict(progress)
                    live.update(status({**shown, "answer": shown["best"]}))

            engines = local.engines
            await Search(
                prepared.tree,
                engines.policy,
                engines.scorer,
                prepared.task,
                clock=time.monotonic,
                observe=observe,
            ).run()
        return prepared.tree
