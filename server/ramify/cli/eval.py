"""`ramify eval`: a data set through several methods, at equal generated tokens and at equal seconds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli import completion
from ramify.cli.terminal import console, ended_as_interrupted, errors, fail, refuse

if TYPE_CHECKING:
    from ramify.evaluation.budgets import Budget
    from ramify.evaluation.methods import Method
    from ramify.evaluation.rows import Row, RowFile
    from ramify.evaluation.runner import Backend, Job
    from ramify.evaluation.summary import Summary

UNTUNED = "the methods run with plain defaults: the tuned values are the demo release's (--methods-file takes others)"
BASELINES = "greedy,best_of_n,best_of_n_cool,best_of_n_vote,self_consistency"


def evaluate(
    data: Annotated[
        str,
        typer.Option(help="Data set: `countdown:SPLIT?numbers=5,6`, `TASK:SPLIT`, or a JSONL file."),
    ] = "countdown:test",
    problems: Annotated[int, typer.Option(min=1, help="How many problems of it.")] = 300,
    data_seed: Annotated[int, typer.Option(help="Which problems.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the searches and of the bootstrap.")] = 0,
    budgets: Annotated[
        str, typer.Option(help="Generated tokens or seconds a problem, several by commas: 300,1000,2s.")
    ] = "300,1000,3000",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods or algorithms by name, by commas, `default` for a bare search; none: all of the file.",
            autocompletion=completion.methods,
        ),
    ] = None,
    methods_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML file of methods; none: the frozen ones."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a parameter: search.kappa=3, mcts.answer=orm_max."),
    ] = None,
    sweep: Annotated[
        list[str] | None, typer.Option(help="Several values of one, each a method: search.kappa=1,2,4.")
    ] = None,
    baselines: Annotated[str, typer.Option(help="Methods that the others are compared with.")] = BASELINES,
    pool: Annotated[
        list[str] | None, typer.Option(help="Groups also reported together: '5 numbers,6 numbers'.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Ask this server, http://…, in place of own engines.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="RAMIFY_API_KEY", help="Its API key.")] = None,
    release: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Release to evaluate; none: the shipped one."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Problems searched at once.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; none: runs/eval/<time>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with what is in --out.")] = False,
) -> None:
    """Run a data set through several methods; write a table, a JSON file and a plot.

    Correctness is the task's verifier's, asked after each search; only methods
    with `grader = "verifier"` or `"mixed"` are told.
    """
    from ramify.evaluation.rows import RowFile
    from ramify.evaluation.runner import schedule
    from ramify.extensions import BadExtension
    from ramify.rewards.datasets import load as load_examples
    from ramify.rewards.errors import BadDataset
    from ramify.service.serving import install
    from ramify.settings import BadSettings, load
    from ramify.weights import WeightsError

    if resume and out is None:
        refuse("--resume needs --out DIR: the folder of the run to go on with")
    ladder = _budgets("--budgets", budgets)
    folder = out or Path("runs/eval") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        # All that can be wrong is found before anything starts.
        install(load())
        evaluated, shipped = _release(server, api_key, release)
        tuned = shipped or methods_file is not None
        chosen = _methods(methods_file, methods, set_ or [], sweep or [], tuned)
        taken = load_examples(data, problems, data_seed)
        head = _head(chosen, ladder, data, len(taken), data_seed, seed, concurrency) | {"release": evaluated}
        rows = RowFile(folder, head, resume=resume)
    except WeightsError as error:
        fail(error, "see what there is:  ramify releases list")
    except (BadDataset, BadExtension, BadSettings, FileExistsError) as error:
        refuse(error)
    if not tuned:
        errors.print(UNTUNED, soft_wrap=True)

    # Rows are kept as searches end, so that a run that is stopped reports what it has, and can go on.
    done = frozenset((row.problem, row.method, row.budget) for row in rows.rows)
    left = schedule(taken, chosen, ladder, concurrency, done)
    interrupted = _run(rows, left, chosen, ladder, seed, concurrency, _backend(server, api_key, release))
    if not rows.rows:
        fail("stopped before the first search had ended")

    about = _about(concurrency, tuned) | head
    pools = [_names(names) for names in pool or []]
    summary = _report(folder, rows, chosen, _names(baselines), pools, seed, about)
    _show(folder, summary)
    if interrupted:
        advice = f"go on with: --resume --out {folder}"
        fail("stopped; the figures are of what was finished", advice, code=130)
    if summary.refused:
        fail(
            f"{len(summary.refused)} of {len(taken)} problems were refused and are in no figure, the first: "
            f"{next(iter(summary.refused.values()))}",
            f"see which in {folder}/results.md",
        )


def _release(server: str | None, api_key: str | None, release: Path | None) -> tuple[dict[str, Any], bool]:
    """Say what is evaluated, and whether it is the shipped release. Raises `WeightsError`."""
    from ramify.cli.http import asking
    from ramify.evaluation.provenance import identity, is_shipped, serves_shipped

    if server is None:
        return identity(release), is_shipped(release)
    with asking(server, api_key, otherwise="eval --release DIR") as client:
        served = client.version()
    return served.model_dump(), serves_shipped(served.model, served.release)


def _budgets(flag: str, text: str) -> list[Budget]:
    from ramify.evaluation.budgets import parse_budgets

    try:
        return parse_budgets(_names(text))
    except ValueError as error:
        refuse(f"{flag}: {error}")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _head(
    methods: list[Method],
    budgets: list[Budget],
    data: str,
    count: int,
    data_seed: int,
    seed: int,
    concurrency: int,
) -> dict[str, Any]:
    """The settings that decide the rows: a run goes on only under the same."""
    from dataclasses import asdict

    clocked = any(budget.unit == "seconds" for budget in budgets)
    return {
        "data": data,
        "problems": count,
        "data_seed": data_seed,
        "seed": seed,
        "budgets": [asdict(budget) for budget in budgets],
        "methods": [asdict(method) | {"parameters": _parameters(method)} for method in methods],
    } | ({"concurrency": concurrency} if clocked else {})


def _parameters(method: Method) -> dict[str, Any] | None:
    """Every parameter but the budget; `None` if the release or the server has to say."""
    from dataclasses import asdict

    from ramify.evaluation.methods import ANY

    if method.algorithm is None:
        return None
    return {name: value for name, value in asdict(method.params(ANY)).items() if name != "budget"}


def _methods(
    file: Path | None, names: str | None, changes: list[str], sweeps: list[str], tuned: bool
) -> list[Method]:
    """Load the methods, those of `names` if given, with the changes and sweeps asked for. Raises `BadSettings`."""
    from ramify.evaluation.methods import load_methods, override, sweep

    return sweep(override(load_methods(file, _names(names) if names else None, tuned=tuned), changes), sweeps)


def _backend(
    server: str | None, api_key: str | None, release: Path | None
) -> AbstractAsyncContextManager[Backend]:
    """A running server, or engines that start when it is entered."""
    from ramify.evaluation.backends import connect, start

    return connect(server, api_key) if server else start(release)


def _about(concurrency: int, tuned: bool) -> dict[str, Any]:
    """Describe the run for a reader of its results: command, machine, versions."""
    from ramify.evaluation.provenance import machine, versions

    return {
        "command": "ramify " + " ".join(sys.argv[1:]),
        "concurrency": concurrency,
        "tuned": tuned,
        "machine": machine(),
        "versions": versions(),
    }


def _run(
    rows: RowFile,
    left: list[list[Job]],
    methods: list[Method],
    budgets: list[Budget],
    seed: int,
    concurrency: int,
    opened: AbstractAsyncContextManager[Backend],
) -> bool:
    """Run the searches that are left, adding their rows. Returns True if it was interrupted."""
    from ramify.cli.progress import Watch
    from ramify.engines.errors import EngineError
    from ramify.evaluation.runner import SearchFailed, run
    from ramify.weights import WeightsError

    async def searches() -> None:
        async with opened as backend:
            with Watch(sum(map(len, left)), methods, budgets) as watch:
                watch.add(rows.rows, jobs=0)

                def observe(new: Sequence[Row]) -> None:
                    rows.add(new)
                    watch.add(new)

                await run(backend, left, seed=seed, concurrency=concurrency, observe=observe)

    try:
        with ended_as_interrupted():
            if left:
                asyncio.run(searches())
    except KeyboardInterrupt:
        return True
    except (WeightsError, EngineError, SearchFailed) as error:
        fail(
            error, *([f"what was finished is kept:  --resume --out {rows.path.parent}"] if rows.rows else [])
        )
    finally:
        rows.close()
    return False


def _report(
    folder: Path,
    rows: RowFile,
    methods: list[Method],
    baselines: list[str],
    pools: list[list[str]],
    seed: int,
    head: dict[str, Any],
) -> Summary:
    from ramify.evaluation.plot import plot
    from ramify.evaluation.report import write
    from ramify.evaluation.summary import summarise

    done = sorted(rows.rows, key=lambda row: (row.problem, row.method, row.budget))
    summary = summarise(done, [m.name for m in methods], baselines, pools, seed)
    write(folder, summary, head, len({row.problem for row in done}))
    if summary.groups:
        plot(summary, folder)
    return summary


def _show(folder: Path, summary: Summary) -> None:
    from ramify.evaluation.report import rich_tables

    console.print(rich_tables(summary))
    console.print(f"results in {folder}: results.md, results.json, rows.ndjson, accuracy.png, accuracy.svg")
