"""`ramify bench`: how near the engines' own limit searching comes, and what the search itself costs."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.terminal import console, ended_as_interrupted, errors, fail, refuse

if TYPE_CHECKING:
    from ramify.bench.report import BenchResults
    from ramify.bench.scaling import SizeScaling
    from ramify.bench.throughput import Load

LADDER = (1, 4, 16, 32, 64)


def bench(
    searches: Annotated[int, typer.Option(min=1, help="Searches in one run.")] = 256,
    slots: Annotated[int, typer.Option(min=1, help="Searches at once.")] = 32,
    tokens: Annotated[int, typer.Option(min=1, help="Generated tokens of one search.")] = 1000,
    pairs: Annotated[int, typer.Option(min=0, help="Runs of search and replay; 0 leaves them out.")] = 5,
    method: Annotated[
        str,
        typer.Option(
            help="Which search: `default`, as a request has it that says nothing, or a method of eval's."
        ),
    ] = "default",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a parameter: search.parallel=16.")
    ] = None,
    data: Annotated[str, typer.Option(help="Data set of the problems.")] = "countdown:dev",
    concurrency: Annotated[bool, typer.Option(help="Also time 1 to 64 searches at once.")] = True,
    scaling: Annotated[bool, typer.Option(help="Also time the search alone on growing trees.")] = True,
    release: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Release to run; none: the shipped one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; none: runs/bench/<time>.")] = None,
) -> None:
    """Time searches against a replay of their own engine requests, and the search without its engines."""
    from ramify.bench.report import rich_tables, write
    from ramify.bench.throughput import Load
    from ramify.engines.errors import EngineError
    from ramify.evaluation.budgets import Budget
    from ramify.evaluation.methods import load_methods, override
    from ramify.evaluation.provenance import identity, is_shipped, machine, versions
    from ramify.evaluation.runner import SearchFailed
    from ramify.extensions import BadExtension
    from ramify.rewards.datasets import load as load_examples
    from ramify.rewards.errors import BadDataset
    from ramify.settings import BadSettings
    from ramify.weights import WeightsError

    try:
        (chosen,) = override(load_methods(names=[method], tuned=is_shipped(release)), set_ or [])
        taken = load_examples(data, max(searches, 2 * max(LADDER)), seed=0)
    except (BadSettings, BadDataset, BadExtension) as error:
        refuse(error)
    except WeightsError as error:
        fail(error, "see what there is:  ramify releases list")
    load = Load(taken[:searches], chosen, tokens, slots)
    try:
        head = {
            "command": "ramify " + " ".join(sys.argv[1:]),
            "release": identity(release) if pairs or concurrency else None,
            "search": chosen.request(Budget("tokens", tokens)),
            "data": data,
            "machine": machine(),
            "versions": versions(),
        }
        with ended_as_interrupted():
            results = asyncio.run(_measure(release, load, pairs, LADDER if concurrency else (), scaling))
    except (BadSettings, BadExtension) as error:
        refuse(error)
    except (WeightsError, EngineError, SearchFailed) as error:
        fail(error, "see what there is:  ramify releases list")
    except KeyboardInterrupt:
        fail("stopped", code=130)
    folder = out or Path("runs/bench") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, results, head)
    console.print(rich_tables(results))
    console.print(f"results in {folder}: results.md, results.json, bench.png, bench.svg")


async def _measure(
    release: Path | None, load: Load, pairs: int, ladder: tuple[int, ...], scaling: bool
) -> BenchResults:
    from ramify.bench.report import BenchResults
    from ramify.bench.throughput import Load, searched, throughput
    from ramify.evaluation.backends import start

    scalings = await _scaling() if scaling else []
    if not pairs and not ladder:
        return BenchResults(growth=scalings)
    async with start(release) as backend:
        compared = await throughput(backend, load, pairs, _tell) if pairs else []
        runs = []
        for slots in ladder:
            some = load.problems[: max(8, min(len(load.problems), 2 * slots))]
            _tell(f"{slots} searches at once")
            run, _ = await searched(backend, Load(some, load.method, load.tokens, slots), seed=0)
            runs.append(run)
    return BenchResults(compared, scalings, runs)


async def _scaling() -> list[SizeScaling]:
    from ramify.bench.scaling import SEARCHES, growth

    scalings = []
    for name in SEARCHES:
        _tell(f"the search alone: {name}")
        scalings.append(await growth(name))
    return scalings


def _tell(line: str) -> None:
    errors.print(line, highlight=False, soft_wrap=True)
