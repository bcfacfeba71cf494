"""`ramify tune`: search defaults for a release and a data set, found on one part of it and measured on another."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli.terminal import console, ended_as_interrupted, fail, refuse

if TYPE_CHECKING:
    from ramify.evaluation.budgets import Budget
    from ramify.evaluation.rows import Row
    from ramify.evaluation.runner import Backend
    from ramify.evaluation.summary import Summary
    from ramify.rewards.verifier import Example
    from ramify.tuning.found import Found
    from ramify.tuning.plan import Plan
    from ramify.tuning.study import Arm
    from ramify.weights import Release


def tune(
    data: Annotated[
        str, typer.Option(help="Data set: `countdown:SPLIT?numbers=5,6`, `TASK:SPLIT`, or a JSONL file.")
    ] = "countdown:dev",
    budgets: Annotated[
        str, typer.Option(help="Generated tokens or seconds a problem, several by commas: 300,1000,2s.")
    ] = "300,1000",
    trials: Annotated[int, typer.Option(min=3, help="Trials of each method under each budget.")] = 60,
    problems: Annotated[int, typer.Option(min=16, help="Problems of a trial.")] = 150,
    held_out: Annotated[
        int, typer.Option(min=1, help="Further problems, on which the best are measured.")
    ] = 300,
    data_seed: Annotated[int, typer.Option(help="Which problems.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the trials, the searches and the bootstrap.")] = 0,
    algorithms: Annotated[
        str, typer.Option(help="Algorithms to choose from, by commas; the first begins.")
    ] = "mcts,gumbel",
    release: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Release to tune; none: the shipped one."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Problems searched at once.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; none: runs/tune/<time>.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with what is in --out.")] = False,
    publish: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Publish the release with these defaults in this directory."),
    ] = None,
) -> None:
    """Find search defaults for a release and a data set, and measure them on held-out problems.

    Beside the search, best-of-N and self-consistency are tuned as well: as many trials, the same problems and budgets.
    """
    from ramify.evaluation.backends import start
    from ramify.evaluation.provenance import identity
    from ramify.extensions import BadExtension
    from ramify.rewards.errors import BadDataset
    from ramify.search.params import ParamError
    from ramify.service.serving import install
    from ramify.settings import BadSettings, load
    from ramify.tuning.plan import Plan, claim, searches, write
    from ramify.tuning.space import DIMENSIONS
    from ramify.tuning.study import BASELINES
    from ramify.weights import WeightsError, load_release, shipped

    if resume and out is None:
        refuse("--resume needs --out DIR: the folder of the run to go on with")
    folder = out or Path("runs/tune") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        # All that can be wrong is found before anything starts.
        install(load())
        tuned = load_release(release or shipped())
        ladder, arm = _budgets(budgets), _arm(algorithms)
        first, rest = _split(data, problems, held_out, data_seed)
        settings = {
            "data": data,
            "problems": problems,
            "held_out": held_out,
            "data_seed": data_seed,
            "seed": seed,
            "concurrency": concurrency,
            "algorithms": list(arm.algorithms),
            "budgets": [str(budget) for budget in ladder],
            "release": identity(tuned.path),
            "space": [dimension.described for dimension in DIMENSIONS],
        }  # `trials` may grow
        claim(folder, settings, resume=resume)
    except WeightsError as error:
        fail(error, "see what there is:  ramify releases list")
    except (BadDataset, BadExtension, BadSettings, ParamError, FileExistsError) as error:
        refuse(error)

    plan = Plan(folder, [arm, *BASELINES], ladder, first, rest, trials, seed, concurrency)
    best, rows = _run(plan, start(release))
    summary = write(plan, best, rows, _about(plan, settings))
    _show(plan, best, summary)
    if publish is not None:
        _publish(tuned, publish, searches(plan, best))


def _budgets(text: str) -> list[Budget]:
    from ramify.evaluation.budgets import parse_budgets

    try:
        return parse_budgets(part.strip() for part in text.split(",") if part.strip())
    except ValueError as error:
        refuse(f"--budgets: {error}")


def _arm(text: str) -> Arm:
    """The tree searches. Raises `ParamError` for an algorithm that does not exist."""
    from ramify.search.params import search_params
    from ramify.tuning.study import Arm

    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        refuse("--algorithms names none")
    for name in names:
        search_params(name)
    return Arm("search", names)


def _split(data: str, problems: int, held_out: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Take the problems of the trials and the held-out ones, which are others. Raises `BadDataset`."""
    from ramify.rewards.datasets import load

    taken = load(data, problems + held_out, seed)
    if len(taken) < problems + held_out:
        refuse(
            f"{data} has {len(taken)} problems: too few for --problems {problems} and --held-out {held_out}"
        )
    return taken[:problems], taken[problems:]


def _run(plan: Plan, opened: AbstractAsyncContextManager[Backend]) -> tuple[list[Found], list[Row]]:
    """Run the trials that are left, then measure the best of each study."""
    from ramify.engines.errors import EngineError
    from ramify.evaluation.runner import SearchFailed

    advice = f"what was finished is kept:  --resume --out {plan.folder}"
    try:
        with ended_as_interrupted():
            return asyncio.run(_both(plan, opened))
    except KeyboardInterrupt:
        fail("stopped", advice, code=130)
    except (EngineError, SearchFailed) as error:
        fail(error, advice)


async def _both(plan: Plan, opened: AbstractAsyncContextManager[Backend]) -> tuple[list[Found], list[Row]]:
    from ramify.cli.progress import TrialWatch, Watch
    from ramify.tuning.plan import held_out, measure, tune

    async with opened as backend:
        tuner = plan.tuner(backend)
        with TrialWatch(plan.trials * len(plan.arms) * len(plan.ladder)) as trials:
            trials.skip(sum(tuner.done(arm, budget) for arm in plan.arms for budget in plan.ladder))
            best = await tune(plan, backend, trials.ended)
        rows, blocks = held_out(plan, best)
        methods = [one.method for one in best if one.budget == plan.ladder[0]]
        try:
            with Watch(sum(map(len, blocks)), methods, plan.ladder) as watch:
                watch.add(rows.rows, jobs=0)

                def observe(new: Sequence[Row]) -> None:
                    rows.add(new)
                    watch.add(new)

                await measure(plan, backend, blocks, observe)
        finally:
            rows.close()
    return best, rows.rows


def _about(plan: Plan, settings: dict[str, Any]) -> dict[str, Any]:
    """Describe the run for a reader of its results."""
    from ramify.evaluation.provenance import machine, versions

    command = "ramify " + " ".join(sys.argv[1:])
    about = {"command": command, "trials": plan.trials, **settings}
    return about | {"machine": machine(), "versions": versions()}


def _show(plan: Plan, best: Sequence[Found], summary: Summary) -> None:
    from ramify.evaluation.report import rich_table, rich_tables
    from ramify.tuning.plan import METHODS, SEARCH

    lines = [["method", "budget", "trials", "given up", "right, tuning", "found"]]
    lines += [
        [
            one.arm,
            one.budget.label,
            str(one.trials),
            str(one.pruned),
            f"{100 * one.right:.1f} %",
            one.words,
        ]
        for one in best
    ]
    console.print(rich_table(f"the best of {plan.trials} trials, on {len(plan.problems)} problems", lines))
    console.print("held out:", highlight=False)
    console.print(rich_tables(summary))
    console.print(f"results in {plan.folder}: {SEARCH}, {METHODS}, results.md, results.json, the plots")
    console.print(
        f"serve them:     RAMIFY_SEARCH_DEFAULTS={plan.folder / SEARCH} ramify serve", soft_wrap=True
    )
    console.print(
        f"evaluate them:  ramify eval --methods-file {plan.folder / METHODS} --budgets {plan.ladder[0]}",
        soft_wrap=True,
    )


def _publish(release: Release, root: Path, best: Sequence[Found]) -> None:
    from ramify.tuning.found import defaults_of, publish_with
    from ramify.weights import WeightsError

    try:
        new = publish_with(release, root, defaults_of(best))
    except (WeightsError, OSError) as error:
        fail(error, "the defaults are in the results; --resume with another --publish DIR tries again")
    console.print(f"published {new.id} in {root}: the weights of {release.id} with these defaults")
