"""Accuracy against tokens and against seconds spent, one panel a group and unit, with 95 % bands."""

from __future__ import annotations

from itertools import product, zip_longest
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from ramify.evaluation.budgets import Unit
from ramify.evaluation.summary import Figure, Summary

STYLE = {"svg.hashsalt": "ramify", "svg.fonttype": "none", "font.size": 9.0}
COLOURS = ("#4c566a", "#d08770", "#bf9000", "#a3be8c", "#2e6fdb", "#8f5ab4", "#2f9e8f", "#c0392b")
LINES = ("-", "--", ":")
"""Further methods than there are colours go round again in another line."""
ACROSS = 3
"""Panels in a row."""


def plot(summary: Summary, folder: Path, name: str = "accuracy") -> list[Path]:
    """Write PNG and SVG; the paths written."""
    with mpl.rc_context(STYLE):
        panels = list(product(summary.units, summary.groups))
        columns = min(ACROSS, len(panels))
        rows = -(-len(panels) // columns)
        canvas = Canvas(figsize=(4.2 * columns, 3.3 * rows + 0.5), layout="constrained")
        FigureCanvasAgg(canvas)
        grid = canvas.subplots(rows, columns, sharey=True, squeeze=False)
        for panel, ax in zip_longest(panels, grid.flat):
            _panel(ax, summary, *panel) if panel else ax.set_axis_off()
        for ax in grid[:, 0]:
            ax.set_ylabel("right answers, %")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
        paths = [folder / f"{name}.png", folder / f"{name}.svg"]
        canvas.savefig(paths[0], dpi=150)
        canvas.savefig(paths[1], metadata={"Date": None})
    return paths


def _panel(ax: Axes, summary: Summary, unit: Unit, group: str) -> None:
    ladder = summary.ladder(unit)
    for i, method in enumerate(summary.methods):
        figures = [f for b in ladder if (f := summary.figure(group, method, b))]
        if figures:
            spent = [
                max(f.tokens, 1.0) if unit == "tokens" else f.seconds or f.budget.amount for f in figures
            ]
            _curve(
                ax, method, spent, figures, COLOURS[i % len(COLOURS)], LINES[i // len(COLOURS) % len(LINES)]
            )
    counts = [f.accuracy.n for f in summary.figures if f.group == group and f.budget.unit == unit]
    ax.set_title(f"{group} ({max(counts, default=0)} problems)")
    ax.set_xlabel("generated tokens spent, a problem" if unit == "tokens" else "seconds spent, a problem")
    ax.set_xscale("log")
    ax.set_xticks([budget.amount for budget in ladder], [f"{budget.amount:g}" for budget in ladder])
    ax.minorticks_off()
    ax.set_ylim(0, 100)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _curve(ax: Axes, method: str, spent: list[float], figures: list[Figure], colour: str, line: str) -> None:
    """A curve with its band; a method that spends the same whatever it may is one point and a level line."""
    mean, low, high = ([100 * getattr(f.accuracy, part) for f in figures] for part in ("mean", "low", "high"))
    if max(spent) < 1.05 * min(spent):
        ax.axhline(mean[-1], color=colour, linewidth=0.8, linestyle=":")
        bars = [[mean[-1] - low[-1]], [high[-1] - mean[-1]]]
        ax.errorbar(spent[-1:], mean[-1:], yerr=bars, fmt="o", color=colour, label=method, markersize=4)
        return
    ax.plot(spent, mean, line, marker="o", markersize=4, linewidth=1.6, color=colour, label=method)
    ax.fill_between(spent, low, high, color=colour, alpha=0.15, linewidth=0)
