"""One run of `ramify tune`: the studies of every arm under every budget, then their best on held-out problems.

Everything lies in one folder, so that a run that was stopped anywhere goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ramify.evaluation import plot, report
from ramify.evaluation.budgets import Budget
from ramify.evaluation.rows import Row, RowFile
from ramify.evaluation.runner import Backend, Job, run, schedule
from ramify.evaluation.summary import Summary, summarise
from ramify.rewards.verifier import Example
from ramify.tuning import plot as importance
from ramify.tuning.found import Found, defaults_of, found, methods_toml
from ramify.tuning.study import Arm, Ended, Tuner, storage
from ramify.weights import toml_of

SETTINGS, TRIALS, HELD_OUT = "settings.json", "trials.db", "held-out"
SEARCH, METHODS = "search.toml", "methods.toml"


@dataclass(frozen=True)
class Plan:
    """All that decides a run but its backend."""

    folder: Path
    arms: Sequence[Arm]
    """The search, then the baselines."""
    ladder: Sequence[Budget]
    problems: Sequence[Example]
    """Those of the trials."""
    held_out: Sequence[Example]
    trials: int
    """Trials of each arm under each budget."""
    seed: int
    concurrency: int

    def tuner(self, backend: Backend) -> Tuner:
        """Open the studies."""
        studies = storage(self.folder / TRIALS)
        return Tuner(backend, self.problems, studies, self.trials, self.seed, self.concurrency)


def claim(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Write the settings of a new run, or compare them with those of the run that goes on.

    Raises `FileExistsError` if there is a run and `resume` is false, or its settings are others.
    """
    path = folder / SETTINGS
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(settings), indent=1) + "\n")
    elif not resume:
        raise FileExistsError(f"{path} has a run: --resume goes on with it, --out DIR starts elsewhere")
    elif (before := json.loads(path.read_text())) != dict(settings):
        changed = ", ".join(sorted(name for name in settings if before.get(name) != settings[name]))
        raise FileExistsError(f"{path} is of another run ({changed} differ): use another --out")


async def tune(plan: Plan, backend: Backend, observe: Callable[[Ended], None]) -> list[Found]:
    """Run the trials that are left, budget by budget. Raises `SearchFailed`."""
    tuner, best = plan.tuner(backend), list[Found]()
    for budget in plan.ladder:
        for arm in plan.arms:
            best.append(found(await tuner.tune(arm, budget, observe), arm, budget))
    return best


def held_out(plan: Plan, best: Sequence[Found]) -> tuple[RowFile, list[list[Job]]]:
    """Return the rows on held-out problems that are there, and the searches that are left: the best of each study, at
    its own budget."""
    head = {"methods": [asdict(one.method) | {"budget": str(one.budget)} for one in best]}
    rows = RowFile(plan.folder / HELD_OUT, head, resume=True)
    done = {(row.problem, row.method, row.budget) for row in rows.rows}
    blocks = []
    for budget in plan.ladder:
        methods = [one.method for one in best if one.budget == budget]
        blocks += schedule(plan.held_out, methods, [budget], plan.concurrency, done)
    return rows, blocks


async def measure(
    plan: Plan, backend: Backend, blocks: Sequence[Sequence[Job]], observe: Callable[[Sequence[Row]], None]
) -> None:
    """Run searches on held-out problems. Raises `SearchFailed`."""
    await run(backend, blocks, seed=plan.seed, concurrency=plan.concurrency, observe=observe)


def write(plan: Plan, best: Sequence[Found], rows: Sequence[Row], about: Mapping[str, Any]) -> Summary:
    """Write what was found: the report on held-out problems, the plots, the defaults and the methods."""
    done = sorted(rows, key=lambda row: (row.problem, row.method, row.budget))
    names = [arm.name for arm in plan.arms]
    summary = summarise(done, names, names[1:], seed=plan.seed)
    head = {**about, "found": [asdict(one) for one in best]}
    report.write(plan.folder, summary, head, len({row.problem for row in done}))
    if summary.groups:
        plot.plot(summary, plan.folder)
    importance.plot(searches(plan, best), plan.folder)
    (plan.folder / SEARCH).write_text(toml_of(defaults_of(searches(plan, best))))
    (plan.folder / METHODS).write_text(methods_toml(best))
    return summary


def searches(plan: Plan, best: Sequence[Found]) -> list[Found]:
    """Return what was found for the search alone, a budget each."""
    return [one for one in best if one.arm == plan.arms[0].name]
