"""A search on a running server, followed over Server-Sent Events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.live import Live

from ramify.cli import http
from ramify.cli.live import status
from ramify.cli.output import console, fail
from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree


def run_remote(server: str, api_key: str | None, body: Mapping[str, Any]) -> Tree:
    """Ask, show the progress, and return the finished tree. Leaves with a message where the server refuses."""
    with http.translated(server), http.client(server, api_key) as client:
        done: Mapping[str, Any] | None = None
        with (
            client.stream(
                "POST", "/v1/search", json={**body, "stream": True, "include_tree": True}
            ) as response,
            Live(status(None), console=console, refresh_per_second=8, transient=True) as live,
        ):
            for name, data in http.events(http.checked(response)):
                if name == "search.progress":
                    live.update(status(data))
                elif name == "search.completed":
                    done = data
                elif name == "error":
                    fail(data["error"]["message"])
        if done is None:
            fail(
                f"{server} closed the stream before the search had ended",
                "its log may have the tree: ramify trees list",
            )
        return tree_from_dict(done["tree_document"])
