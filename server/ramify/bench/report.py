"""What the bench found, as tables, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Group, RenderableType

from ramify.bench.scaling import SizeScaling
from ramify.bench.throughput import SearchRun, Throughput
from ramify.evaluation.plot import COLOURS, STYLE
from ramify.evaluation.report import Lines, markdown_table, rich_table

TARGET = 1.2
"""Search time over replay time that is aimed at."""


@dataclass(frozen=True, slots=True)
class BenchResults:
    """Everything measured; what was not asked for is empty."""

    throughput: Throughput | None
    growth: Sequence[SizeScaling]
    concurrency: Sequence[SearchRun]


def pair_table(throughput: Throughput) -> Lines:
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
    for i, pair in enumerate(throughput.pairs, 1):
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
    medians = (f"{throughput.ratio:.3f}", f"{100 * throughput.own_cpu:.1f}")
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


def concurrency_table(runs: Sequence[SearchRun]) -> Lines:
    lines = [
        ["searches at once", "searches", "seconds", "searches/s", "tokens/s", "scored/s", "CPU, % of a core"]
    ]
    for run in runs:
        rates = (run.searches / run.seconds, run.tokens / run.seconds, run.scored / run.seconds)
        shown = (f"{rates[0]:.2f}", f"{rates[1]:.0f}", f"{rates[2]:.0f}")
        cpu = f"{100 * run.cpu_seconds / run.seconds:.0f}"
        lines.append([str(run.slots), str(run.searches), f"{run.seconds:.2f}", *shown, cpu])
    return lines


def titled(found: BenchResults) -> list[tuple[str, Lines]]:
    """Each table under its title."""
    tables = []
    if found.throughput:
        verdict = "met" if found.throughput.ratio <= TARGET else "missed"
        title = f"search time / replay time: {found.throughput.ratio:.3f} (target {TARGET}: {verdict})"
        tables.append((title, pair_table(found.throughput)))
    if found.growth:
        tables.append(("the search alone, on engines that take no time", growth_table(found.growth)))
    if found.concurrency:
        tables.append(("searches at once, real engines", concurrency_table(found.concurrency)))
    return tables


def rich_tables(found: BenchResults) -> RenderableType:
    return Group(*(rich_table(title, lines) for title, lines in titled(found)))


def write(folder: Path, found: BenchResults, head: Mapping[str, Any]) -> None:
    """`results.json`, `results.md`, `bench.png` and `bench.svg`."""
    figures: dict[str, Any] = asdict(found)
    if found.throughput:
        figures["ratio"], figures["own_cpu"] = found.throughput.ratio, found.throughput.own_cpu
    (folder / "results.json").write_text(json.dumps({**head, **figures}, indent=1) + "\n")
    parts = ["# Bench\n", f"`{head['command']}`\n"]
    parts += [f"- {key}: `{json.dumps(value)}`" for key, value in head.items() if key != "command"]
    for title, lines in titled(found):
        parts += [f"\n## {title}\n", markdown_table(lines)]
    (folder / "results.md").write_text("\n".join(parts))
    plot(folder, found)


def plot(folder: Path, found: BenchResults) -> None:
    """Cost against tree size, and searches a second against how many run at once."""
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(8.4, 3.6), layout="constrained")
        FigureCanvasAgg(canvas)
        left, right = canvas.subplots(1, 2)
        for i, one in enumerate(found.growth):
            nodes = [size.nodes for size in one.sizes]
            seconds = [1000 * size.seconds for size in one.sizes]
            label = f"{one.search} (exponent {one.exponent:.2f})"
            left.loglog(nodes, seconds, marker="o", color=COLOURS[i + 3], label=label)
        left.set(xlabel="nodes of the tree", ylabel="processor time of the search alone, ms")
        if found.growth:
            left.legend(frameon=False, fontsize=7)
        slots = [run.slots for run in found.concurrency]
        right.plot(
            slots, [run.searches / run.seconds for run in found.concurrency], marker="o", color=COLOURS[4]
        )
        right.set(xlabel="searches at once", ylabel="searches a second")
        for ax in (left, right):
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
        canvas.savefig(folder / "bench.png", dpi=150)
        canvas.savefig(folder / "bench.svg", metadata={"Date": None})
