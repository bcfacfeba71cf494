"""A search on a running server, followed as it grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.live import Live

from ramify.cli.http import asking
from ramify.cli.live import status
from ramify.cli.output import errors, fail
from ramify.search.codec import tree_from_dict
from ramify.search.tree import Tree
from ramify_client.results import SearchResult


def run_remote(server: str | None, api_key: str | None, body: Mapping[str, Any]) -> tuple[Tree, str]:
    """Ask, show the progress, and return the finished tree and the address of its page in the viewer.

    Leaves with a message if the server refuses.
    """
    result: SearchResult | None = None
    with (
        asking(server, api_key) as client,
        client.stream(**body, include_tree=True) as events,
        Live(status(None), console=errors, refresh_per_second=8, transient=True) as live,
    ):
        for event in events:
            if event.kind == "progress":
                live.update(status(event.model_dump()))
            result = event.result
        page = client.configuration.base_url + (result.tree.url if result else "")
    if result is None or result.tree_document is None:
        fail("the server's answer is without its tree")
    return tree_from_dict(result.tree_document), page
