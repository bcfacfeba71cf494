"""`ramify search`: one prompt, answered by a tree search that is shown as it grows."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from ramify.cli import completion
from ramify.cli.terminal import AsJson, ended_as_interrupted, errors, fail, print_json, refuse

if TYPE_CHECKING:
    from ramify.search.run import Progress
    from ramify.search.tree import Tree
    from ramify.service.search_spec import SearchSpec
    from ramify_client import Client
    from ramify_client.client import SearchStream

DEFAULT_TOKENS = 1000
EVERY = 0.1
"""Seconds between two looks at the progress of a search in this process."""


def search(
    prompt: Annotated[
        str, typer.Argument(help='What to ask, such as "3 5 7 8 to 24"; `-` reads it from standard input.')
    ],
    server: Annotated[
        str | None,
        typer.Option(envvar="RAMIFY_BASE_URL", help="Server to ask; none: the one on the default port."),
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="RAMIFY_API_KEY", help="Its API key.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Search in this process, without a server.")] = False,
    release: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="With --local: the release to search with."),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="mcts, gumbel, best_of_n, … (docs/search.md); none: as the release says, or mcts.",
            autocompletion=completion.algorithms,
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Generated tokens that it may spend.")] = DEFAULT_TOKENS,
    simulations: Annotated[
        int | None,
        typer.Option(min=1, help="Simulations that it may run; none: as many as the tokens pay for."),
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            help="Who judges complete answers: model, verifier or mixed; none: as the release says."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task of the prompt; none: the model's own.", autocompletion=completion.tasks),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any other parameter: kappa=3.")] = None,
    seed: Annotated[int | None, typer.Option(help="For the same search again.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt through the model's chat template.")
    ] = False,
    branches: Annotated[int, typer.Option(min=1, help="Branches shown at each node.")] = 3,
    as_json: AsJson = False,
    web: Annotated[bool, typer.Option("--web", help="Open the tree in the server's viewer.")] = False,
) -> None:
    """Search for an answer, watch it grow, see the tree."""
    if release is not None and not local:
        refuse("--release goes with --local; a running server has its own")
    if web and local:
        refuse("--web goes without --local: the viewer is a server's")
    if prompt == "-" and not (prompt := sys.stdin.read().removesuffix("\n")):
        refuse("standard input is empty: give it the prompt")
    named = {"algorithm": algorithm, "grader": grader}
    parameters = {
        **{name: value for name, value in named.items() if value is not None},
        "budget": {"tokens": tokens} | ({} if simulations is None else {"simulations": simulations}),
        **_settings(set_ or []),
    }
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body["search"] = parameters
    if task is not None:
        body["task"] = {"name": task}
    if seed is not None:
        body["seed"] = seed
    tree, page = (search_locally(release, body), "") if local else search_on_server(server, api_key, body)
    if as_json:
        from ramify.search.codec import tree_to_dict

        print_json(tree_to_dict(tree))
    else:
        from ramify.cli.tree_view import show

        show(tree, branches)
    if web:
        _open(page)


def go_on(
    search_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the search, or of its tree.")],
    server: Annotated[
        str | None,
        typer.Option(envvar="RAMIFY_BASE_URL", help="Server to ask; none: the one on the default port."),
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="RAMIFY_API_KEY", help="Its API key.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Generated tokens of the whole search.")] = None,
    simulations: Annotated[int | None, typer.Option(min=1, help="Simulations of the whole search.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of the whole tree.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.001, help="Seconds of the whole search.")] = None,
    branches: Annotated[int, typer.Option(min=1, help="Branches shown at each node.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Let an ended or interrupted search go on where it was; limits left out stay."""
    from ramify.cli.http import asking

    limits = {"tokens": tokens, "simulations": simulations, "nodes": nodes, "seconds": seconds}
    budget = {name: value for name, value in limits.items() if value is not None}
    with asking(server, api_key) as client:
        tree, _ = watched(client, client.stream_continued(search_id, budget, include_tree=True))
    if as_json:
        from ramify.search.codec import tree_to_dict

        print_json(tree_to_dict(tree))
    else:
        from ramify.cli.tree_view import show

        show(tree, branches)


def _require_algorithm(name: str) -> None:
    """Exit with a message unless there is an algorithm of this name: engines take long to start in vain."""
    from difflib import get_close_matches

    from ramify.search.algorithms import ALGORITHMS

    if name not in ALGORITHMS:
        close = get_close_matches(name, ALGORITHMS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}?" if close else ""
        there = f"there are {', '.join(ALGORITHMS)}"
        refuse(f"no algorithm is called {name!r}", *([hint] if hint else []), there)


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """The parameters that `--set` gives."""
    from ramify.evaluation.methods import parse_value

    parameters = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            refuse(f"--set {word!r} has no '=': write it like kappa=3")
        parameters[name.strip()] = parse_value(text.strip())
    return parameters


def search_on_server(server: str | None, api_key: str | None, body: Mapping[str, Any]) -> tuple[Tree, str]:
    """Search on a running server, showing the progress; return the finished tree and its page in the viewer.

    Exits with a message if the server refuses.
    """
    from ramify.cli.http import asking

    with asking(server, api_key) as client:
        return watched(client, client.stream(**body, include_tree=True))


def watched(client: Client, stream: AbstractContextManager[SearchStream]) -> tuple[Tree, str]:
    """Show the progress of a search on a server; return the finished tree and its page in the viewer."""
    from ramify.search.codec import tree_from_dict

    result = None
    with (
        stream as events,
        Live(_status(None), console=errors, refresh_per_second=8, transient=True) as live,
    ):
        for event in events:
            if event.kind == "progress":
                live.update(_status(event.model_dump()))
            result = event.result
        page = client.configuration.base_url + (result.tree.url if result else "")
    if result is None or result.tree_document is None:
        fail("the server's answer is without its tree")
    return tree_from_dict(result.tree_document), page


def search_locally(release: Path | None, body: Mapping[str, Any]) -> Tree:
    """Start a release's engines in this process, search, and return the finished tree.

    Exits with a message if a parameter is wrong or the engines do not start.
    """
    from ramify.engines.errors import EngineError
    from ramify.extensions import BadExtension
    from ramify.service.serving import install
    from ramify.settings import BadSettings, load
    from ramify.weights import WeightsError

    try:
        install(load())
        if "algorithm" in body["search"]:
            _require_algorithm(body["search"]["algorithm"])
        with ended_as_interrupted():
            return asyncio.run(_search_in_process(release, body))
    except (BadSettings, BadExtension) as error:
        refuse(error)
    except (WeightsError, EngineError) as error:
        fail(error, "see what there is:  ramify releases list")
    except KeyboardInterrupt:
        fail("stopped", code=130)


async def _search_in_process(release: Path | None, body: Mapping[str, Any]) -> Tree:
    from ramify.evaluation.backends import start
    from ramify.search.run import Search
    from ramify.service.errors import ServiceError

    async with start(release) as local:
        try:
            prepared = local.preparer.prepare(_spec(body))
        except ServiceError as error:
            refuse(f"{error.param}: {error.message}")
        last = time.monotonic()
        with Live(_status(None), console=errors, refresh_per_second=8, transient=True) as live:

            def observe(progress: Progress) -> None:
                nonlocal last
                if time.monotonic() - last > EVERY:
                    last = time.monotonic()
                    live.update(_status({**asdict(progress), "answer": asdict(progress)["best"]}))

            engines = local.engines
            await Search(
                prepared.tree,
                engines.policies,
                engines.scorer,
                prepared.task,
                clock=time.monotonic,
                reviser=prepared.reviser,
                observe=observe,
                crowd=engines.crowd,
            ).run()
        return prepared.tree


def _spec(body: Mapping[str, Any]) -> SearchSpec:
    """A request's body as the service takes it."""
    from ramify.rewards import Message
    from ramify.service.search_spec import SearchSpec

    return SearchSpec(
        prompt=body.get("prompt"),
        messages=tuple(Message(**message) for message in body.get("messages", ())),
        task=body.get("task", {}).get("name"),
        search=body["search"],
        seed=body.get("seed"),
    )


def _status(progress: Mapping[str, Any] | None) -> RenderableType:
    """A spinner with the figures of a `search.progress` event, and the best answer so far under it."""
    if progress is None:
        return Spinner("dots", Text("searching …"))
    line = (
        f"{progress['simulations']} simulations, {progress['tokens']} tokens, {progress['nodes']} nodes, "
        f"{progress['seconds']:.1f} s"
    )
    best = progress.get("answer")
    if not best:
        return Spinner("dots", Text(line))
    value = "" if best.get("value") is None else f" [dim](value {best['value']:.2f})[/]"
    text = escape(str(best.get("final") or best["text"]).strip())
    return Group(Spinner("dots", Text(line)), Text.from_markup(f"  best so far: [cyan]{text}[/]{value}"))


def _open(page: str) -> None:
    """Print the address of the tree's page, and open it if somebody sits at this terminal."""
    errors.print(page, highlight=False, soft_wrap=True)
    if sys.stdout.isatty():
        typer.launch(page)
