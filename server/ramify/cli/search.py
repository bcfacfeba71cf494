"""`ramify search`: one question, answered by tree search before one's eyes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ramify.cli import completion
from ramify.cli.output import AsJson, console, errors, fail, print_json, refuse
from ramify.cli.signals import ended_as_interrupted

DEFAULT_TOKENS = 1000


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
        str,
        typer.Option(
            help="mcts, gumbel, best_of_n, … (docs/search.md)", autocompletion=completion.algorithms
        ),
    ] = "mcts",
    tokens: Annotated[int, typer.Option(min=1, help="Generated tokens that it may spend.")] = DEFAULT_TOKENS,
    simulations: Annotated[
        int | None,
        typer.Option(min=1, help="Simulations that it may run; none: as many as the tokens pay for."),
    ] = None,
    grader: Annotated[str, typer.Option(help="Who judges complete answers: model or verifier.")] = "model",
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
    from ramify.evaluation.methods import parse_value

    if release is not None and not local:
        refuse("--release goes with --local; a running server has its own")
    if web and local:
        refuse("--web goes without --local: the viewer is a server's")
    if prompt == "-" and not (prompt := sys.stdin.read().removesuffix("\n")):
        refuse("standard input is empty: there is no prompt")
    asked: dict[str, Any] = {
        "algorithm": _algorithm(algorithm),
        "grader": grader,
        "budget": {"tokens": tokens} | ({} if simulations is None else {"simulations": simulations}),
    }
    for setting in set_ or []:
        key, found, text = setting.partition("=")
        if not found:
            refuse(f"--set {setting!r} has no '=': write it like kappa=3")
        asked[key.strip()] = parse_value(text.strip())
    body: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body |= (
        {"search": asked}
        | ({} if task is None else {"task": {"name": task}})
        | ({} if seed is None else {"seed": seed})
    )
    if local:
        from ramify.cli.search_local import run_local
        from ramify.engines.errors import EngineError
        from ramify.weights import WeightsError

        try:
            with ended_as_interrupted():
                tree = asyncio.run(run_local(release, body))
        except (WeightsError, EngineError) as error:
            fail(error, "see what there is:  ramify releases list")
        except KeyboardInterrupt:
            fail("stopped", code=130)
    else:
        from ramify.cli.search_remote import run_remote

        tree, page = run_remote(server, api_key, body)
    if as_json:
        from ramify.search.codec import tree_to_dict

        print_json(tree_to_dict(tree))
    else:
        show(tree, branches)
    if web:
        _open(page)


def _open(page: str) -> None:
    """Say where the tree is, and open it if somebody sits at this terminal."""
    errors.print(page, highlight=False, soft_wrap=True)
    if sys.stdout.isatty():
        typer.launch(page)


def _algorithm(name: str) -> str:
    from difflib import get_close_matches
    from typing import get_args

    from ramify.search.records import Algorithm

    known = get_args(Algorithm)
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}?" if close else ""
        refuse(f"no algorithm is called {name!r}", *([hint] if hint else []), f"there are {', '.join(known)}")
    return name


def show(tree: Any, branches: int, outcome: float | None = None) -> None:
    """The tree, the answer, and what it cost. outcome: the latest verdict on the answer; None: the tree's own."""
    from rich.markup import escape

    from ramify.cli.tree_view import draw
    from ramify.evaluation.verdicts import right_nodes

    right = asyncio.run(right_nodes(tree))
    console.print(draw(tree, right, branches))
    console.print()
    if tree.answer is None:
        fail(f"no answer: the search ended {tree.status} ({tree.error or tree.stop_reason})")
    if outcome is None and tree.verdict is not None:
        outcome = tree.verdict.outcome
    if outcome is None and right is not None:
        outcome = float(tree.answer.node in right)
    mark = "" if outcome is None else "[bold green]right[/]" if outcome >= 1 else "[red]wrong[/]"
    console.print("[bold]answer[/]", mark)
    console.print(escape(tree.answer.text.rstrip("\n")), highlight=False)
    usage = tree.usage
    value = "" if tree.answer.value is None else f"value {tree.answer.value:.2f}, "
    console.print(
        f"[dim]{value}{usage.simulations} simulations, {usage.completion_tokens} tokens, {usage.nodes} nodes, "
        f"{usage.seconds:.2f} s; ended by {tree.stop_reason}; {tree.id}[/]",
        highlight=False,
    )
