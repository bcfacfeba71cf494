"""A comparison as tables, as JSON, and as curves against optimizer steps, tokens and seconds."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

from ramify.statistics import paired_difference
from research.compare.config import ArmRun, CompareConfig
from research.compare.intervals import over_seeds
from research.compare.passes import passes
from research.compare.points import Figure, Mean, Point, means, steps_to_reach
from research.compare.scores import scores_of

FIGURES: Mapping[Figure, str] = {
    "mean_at_k": "mean@k",
    "greedy": "greedy",
    "searched": "with search",
}
COSTS = {
    "steps": "steps",
    "tokens": "policy tokens",
    "value_tokens": "value tokens",
    "trained_tokens": "trained tokens",
    "read_tokens": "read in training",
    "seconds": "seconds",
}
"""Attributes of a `Mean`, with their heads in a table."""
AGAINST = {
    "steps": "optimizer steps",
    "tokens": "policy tokens",
    "searching_tokens": "policy and value tokens",
    "trained_tokens": "trained tokens",
    "seconds": "seconds",
}
"""The same for the curves."""


def markdown(config: CompareConfig, points: Sequence[Point]) -> str:
    """Return tables of every arm's end, its way there, and the steps that each needed for the others' accuracy."""
    averages = means(points)
    return "\n".join(
        [*_ends(config, averages), "", *_ways(config, averages), "", *_reached(config, averages), ""]
    )


def _curves(config: CompareConfig, averages: Sequence[Mean]) -> dict[str, tuple[str, list[Mean]]]:
    """Return label and curve by arm, of those that have begun."""
    every = {arm.name: (arm.label, [m for m in averages if m.arm == arm.name]) for arm in config.arms}
    return {name: (label, curve) for name, (label, curve) in every.items() if curve}


def _ends(config: CompareConfig, averages: Sequence[Mean]) -> list[str]:
    heads = ["arm", "seeds", *COSTS.values(), *FIGURES.values()]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for i, (label, curve) in enumerate(_curves(config, averages).values()):
        if i == 0:
            lines.append(f"| base | {' | 0' * len(COSTS)} | {_accuracies(curve[0])} |")
        last = curve[-1]
        costs = " | ".join(_count(getattr(last, name)) for name in COSTS)
        lines.append(f"| {label} | {last.seeds} | {costs} | {_accuracies(last)} |")
    return lines


def _accuracies(mean: Mean) -> str:
    return " | ".join(_percent(getattr(mean, figure)) for figure in FIGURES)


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _ways(config: CompareConfig, averages: Sequence[Mean]) -> list[str]:
    """Tabulate mean@k / greedy / with search after every round."""
    rounds = max(map(config.rounds_of, config.arms))
    head = " | ".join(f"round {i}" if i else "base" for i in range(rounds + 1))
    lines = [f"| mean@k / greedy / with search | {head} |", "|---" * (rounds + 2) + "|"]
    for label, curve in _curves(config, averages).values():
        cells = [_accuracies(mean).removesuffix(" | ").replace(" | ", " / ") for mean in curve]
        lines.append(f"| {label} | " + " | ".join(cells + [""] * (rounds + 1 - len(cells))) + " |")
    return lines


def _reached(config: CompareConfig, averages: Sequence[Mean]) -> list[str]:
    """Tabulate the row's steps to the column's last mean@k."""
    curves = _curves(config, averages)
    head = " | ".join(f"{label} ({100 * curve[-1].mean_at_k:.1f})" for label, curve in curves.values())
    lines = [f"| steps to the mean@k of | {head} |", "|---" * (len(curves) + 1) + "|"]
    for label, curve in curves.values():
        needed = [steps_to_reach(curve, "mean_at_k", other[-1].mean_at_k) for _, other in curves.values()]
        cells = " | ".join("never" if steps is None else f"{steps:.0f}" for steps in needed)
        lines.append(f"| {label} | {cells} |")
    return lines


def write(folder: Path, config: CompareConfig, points: Sequence[Point]) -> str:
    """Write `results.md`, `results.json`, `curves.png` and `curves.svg` in the comparison's `folder`.

    Returns the tables."""
    parts = [
        by_seed(config, points),
        differences(config, folder),
        over_seeds(config, folder, points),
        passes(config, folder),
    ]
    table = "\n".join([markdown(config, points), *(line for part in parts if part for line in [*part, ""])])
    whole = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "config": config.model_dump(mode="json"),
        "means": [asdict(m) for m in means(points)],
        "points": [p.model_dump() for p in points],
    }
    (folder / "results.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(table, encoding="utf-8")
    _plot(folder, config, means(points))
    return table


def _plot(folder: Path, config: CompareConfig, averages: Sequence[Mean]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    drawing, grid = pyplot.subplots(
        len(FIGURES), len(AGAINST), figsize=(17, 9), layout="constrained", sharey="row", sharex="col"
    )
    for row, (figure, title) in zip(grid, FIGURES.items(), strict=True):
        for axes, against in zip(row, AGAINST, strict=True):
            for label, curve in _curves(config, averages).values():
                known = (against, figure)
                measured = [m for m in curve if all(getattr(m, name) is not None for name in known)]
                heights = [100 * getattr(m, figure) for m in measured]
                axes.plot([getattr(m, against) for m in measured], heights, marker="o", ms=3, label=label)
            axes.grid(alpha=0.3)
        row[0].set_ylabel(f"{title}, right in %")
    for axes, name in zip(grid[-1], AGAINST.values(), strict=True):
        axes.set_xlabel(name)
        axes.locator_params(axis="x", nbins=4)
    lines, labels = grid[0][0].get_legend_handles_labels()
    drawing.legend(lines, labels, loc="outside upper center", ncols=2, fontsize=9)
    for kind in ("png", "svg"):
        drawing.savefig(folder / f"curves.{kind}", dpi=100)
    pyplot.close(drawing)


def by_seed(config: CompareConfig, points: Sequence[Point]) -> list[str]:
    """Tabulate the end of every finished run, and its steps to the first arm's last mean@k of the same seed."""
    first = config.arms[0]
    lines = [
        f"| arm | seed | mean@k | greedy | with search | steps to the mean@k of {first.label} |",
        "|---|---|---|---|---|---|",
    ]
    for run in config.runs():
        curve, aim = _curve(run, config, points), _curve(ArmRun(first, run.seed), config, points)
        if curve:
            last = curve[-1]
            steps = steps_to_reach(means(curve), "mean_at_k", aim[-1].mean_at_k) if aim else None
            ends = " | ".join(map(_percent, (last.mean_at_k, last.greedy, last.searched)))
            sooner = "never" if steps is None else f"{steps:.0f}"
            lines.append(f"| {run.arm.label} | {run.seed} | {ends} | {sooner} |")
    return lines


def _curve(run: ArmRun, config: CompareConfig, points: Sequence[Point]) -> list[Point]:
    """Return all points of a run that is finished."""
    curve = [p for p in points if (p.arm, p.seed) == (run.arm.name, run.seed)]
    return curve if len(curve) > config.rounds_of(run.arm) else []


def differences(config: CompareConfig, folder: Path) -> list[str]:
    """Tabulate every arm less every one before it, of one seed, at the end of what is finished in `folder`: points,
    with 95 % bootstrap intervals over problems."""
    lines = ["| at the end, points [95 %] | seed | mean@k | greedy |", "|---|---|---|---|"]
    ends = [
        (run, scores)
        for run in config.runs()
        if (scores := scores_of(folder / run.name, config.rounds_of(run.arm)))
    ]
    for (earlier, theirs), (later, ours) in combinations(ends, 2):
        if earlier.seed == later.seed:
            mean, greedy = (
                paired_difference(getattr(ours[-1], figure), getattr(theirs[-1], figure)).percent(signed=True)
                for figure in ("mean", "greedy")
            )
            lines.append(f"| {later.arm.label} less {earlier.arm.label} | {later.seed} | {mean} | {greedy} |")
    return lines
