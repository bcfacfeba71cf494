"""The figures of a bench as tables, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Group, RenderableType

from ramify.bench.scaling import SizeScaling
from ramify.bench.throughput import BenchRun, Pair
from ramify.evaluation.plot import COLOURS, STYLE
from ramify.evaluation.report import Lines, markdown_table, rich_table

TARGET = 1.2
"""Search time over replay time that is aimed at."""


@dataclass(frozen=True, slots=True)
class BenchResults:
    """Everything measured; what was not asked for is empty."""

    pairs: Sequence[Pair] = ()
    growth: Sequence[SizeScaling] = ()
    concurrency: Sequence[BenchRun] = ()

    @property
    def ratio(self) -> float:
        """Median of search time over replay time."""
        return median(pair.ratio for pair in self.pairs)

    @property
    def own_cpu(self) -> float:
        """Median of the search's own share of a core."""
        return median(pair.own_cpu for pair in self.pairs)


def pair_table(results: BenchResults) -> Lines:
    lines = [
        [
            "pair",
            "searches",
            "requests",
            "tokens",
            "scored",
            "search s",
            "replay s",
            "ratio",
            "own CPU, % of a core",
            "policy steps",
            "value steps",
        ]
    ]
    for i, pair in enumerate(results.pairs, 1):
        run, replay = pair.searched, pair.replayed
        counts = (str(run.searches), str(run.requests), str(run.tokens), str(run.scored))
        seconds = (
            f"{run.seconds:.2f}",
            f"{replay.seconds:.2f}",
            f"{pair.ratio:.3f}",
            f"{100 * pair.own_cpu:.1f}",
        )
        steps = (f"{run.steps.get(role, 0)}, {replay.steps.get(role, 0)}" for role in ("policy", "value"))
        lines.append([str(i), *counts, *seconds, *steps])
    medians = (f"{results.ratio:.3f}", f"{100 * results.own_cpu:.1f}")
    lines.append(["median", *[""] * 6, *medians, "", ""])
    return lines


def growth_table(growth: Sequence[SizeScaling]) -> Lines:
    lines = [["search", "nodes", "simulations", "CPU seconds", "µs a simulation", "exponent"]]
    for one in growth:
        for i, size in enumerate(one.sizes):
            exponent = f"{one.exponent:.2f}" if i == len(one.sizes) - 1 else ""
            figures = (f"{size.seconds:.3f}", f"{1e6 * size.per_simulation:.0f}", exponent)
            lines.append([one.search, str(size.nodes), str(size.simulations), *figures])
    return lines


def concurrency_table(runs: Sequence[BenchRun]) -> Lines:
    lines = [
        ["searches at once", "searches", "seconds", "searches/s", "tokens/s", "scored/s", "CPU, % of a core"]
    ]
    for run in runs:
        rates = (run.searches / run.seconds, run.tokens / run.seconds, run.scored / run.seconds)
        shown = (f"{rates[0]:.2f}", f"{rates[1]:.0f}", f"{rates[2]:.0f}")
        cpu = f"{100 * run.cpu_seconds / run.seconds:.0f}"
        lines.append([str(run.slots), str(run.searches), f"{run.seconds:.2f}", *shown, cpu])
    return lines


def titled(results: BenchResults) -> list[tuple[str, Lines]]:
    """Each table under its title."""
    tables = []
    if results.pairs:
        judgement = "met" if results.ratio <= TARGET else "missed"
        title = f"search time / replay time: {results.ratio:.3f} (target {TARGET}: {judgement})"
        tables.append((title, pair_table(results)))
    if results.growth:
        tables.append(("the search alone, on engines that take no time", growth_table(results.growth)))
    if results.concurrency:
        tables.append(("searches at once, real engines", concurrency_table(results.concurrency)))
    return tables


def rich_tables(results: BenchResults) -> RenderableType:
    return Group(*(rich_table(title, lines) for title, lines in titled(results)))


def write(folder: Path, results: BenchResults, head: Mapping[str, Any]) -> None:
    """`results.json`, `results.md`, `bench.png` and `bench.svg`."""
    figures: dict[str, Any] = asdict(results)
    figures["throughput"] = {"pairs": figures.pop("pairs")} if results.pairs else None
    if results.pairs:
        figures["ratio"], figures["own_cpu"] = results.ratio, results.own_cpu
    (folder / "results.json").write_text(json.dumps({**head, **figures}, indent=1) + "\n")
    parts = ["# Bench\n", f"`{head['command']}`\n"]
    parts += [f"- {key}: `{json.dumps(value)}`" for key, value in head.items() if key != "command"]
    for title, lines in titled(results):
        parts += [f"\n## {title}\n", markdown_table(lines)]
    (folder / "results.md").write_text("\n".join(parts))
    plot(folder, results)


def plot(folder: Path, results: BenchResults) -> None:
    """Cost against tree size, and searches a second against how many run at once."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(8.4, 3.6), layout="constrained")
        FigureCanvasAgg(canvas)
        left, right = canvas.subplots(1, 2)
        for i, one in enumerate(results.growth):
            nodes = [size.nodes for size in one.sizes]
            seconds = [1000 * size.seconds for size in one.sizes]
            label = f"{one.search} (exponent {one.exponent:.2f})"
            left.loglog(nodes, seconds, marker="o", color=COLOURS[i + 3], label=label)
        left.set(xlabel="nodes of the tree", ylabel="processor time of the search alone, ms")
        if results.growth:
            left.legend(frameon=False, fontsize=7)
        slots = [run.slots for run in results.concurrency]
        right.plot(
            slots, [run.searches / run.seconds for run in results.concurrency], marker="o", color=COLOURS[4]
        )
        right.set(xlabel="searches at once", ylabel="searches a second")
        for ax in (left, right):
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
        canvas.savefig(folder / "bench.png", dpi=150)
        canvas.savefig(folder / "bench.svg", metadata={"Date": None})
