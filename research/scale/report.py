"""The report of a sweep: tables of every parameter and run, and the plots of docs/fleet.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from research.scale.parameters import MEASURED, Parameters
from research.scale.sweep import RATES, TABLES, Row


def report(of: Parameters, out: Path, say: Callable[[str], None]) -> None:
    """Run the whole sweep and write `report.md`, `rows.json` and the plots into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Row]] = {}
    for name, runs in TABLES.items():
        say(name)
        rows[name] = runs(of)
        (out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    write(of, rows, out)


def write(of: Parameters, rows: dict[str, list[Row]], out: Path) -> None:
    """Write tables and plots of rows."""
    sections = [f"## {name}\n\n{markdown(found)}" for name, found in rows.items()]
    head = f"# A fleet past one machine, by simulation\n\n## Parameters\n\n{machine()}\n\n{parameters(of)}"
    (out / "report.md").write_text("\n\n".join([head, *sections]) + "\n")
    plot(rows, out / "fleet-scale.png")


def markdown(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(_cell(row[name]) for name in head)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: float | str | None) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def machine() -> str:
    """Name the machine of the measured parameters."""
    told = json.loads(MEASURED.read_text())
    of = told["machine"]
    return f"Measured {told['date']} on {of['cores']} core of an {of['cpu']} that other work shared, by `measure`."


def parameters(of: Parameters) -> str:
    """Write every parameter with its value, unit, source and range."""
    rows: list[Row] = [
        {
            "parameter": f"`{one.name}`",
            "value": getattr(of, one.name),
            "unit": one.metadata["unit"],
            "meaning": one.metadata["meaning"],
            "source": one.metadata["source"] + _range(one.metadata),
        }
        for one in fields(of)
        if one.metadata
    ]
    return markdown(rows)


def _range(about: Any) -> str:
    return f", {about['low']:g} to {about['high']:g}" if "low" in about else ""


def plot(rows: dict[str, list[Row]], path: Path) -> None:
    """Draw four pictures: answers against load, the log's wait, the epoch's looks and activations, hot prompts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8))
    for size in dict.fromkeys(row["replicas"] for row in rows["Loads"]):
        _line(axes[0][0], rows["Loads"], {"replicas": size}, "searches/s", "answered/s", f"{size} replicas")
    axes[0][0].plot(RATES, RATES, color="grey", linewidth=0.7, linestyle=":")
    axes[0][0].set(
        title="What is answered",
        xscale="log",
        yscale="log",
        xlabel="searches a second",
        ylabel="answered a second",
    )
    for name in dict.fromkeys(row["log"] for row in rows["The log"]):
        _line(axes[0][1], rows["The log"], {"log": name}, "replicas", "commit p99 s", str(name))
    axes[0][1].set(
        title="Wait for a commit, 2 searches/s a replica",
        xscale="log",
        yscale="log",
        xlabel="replicas",
        ylabel="p99, s",
    )
    for mode in ("rolling", "barrier"):
        _line(axes[1][0], rows["Activations"], {"mode": mode}, "replicas", "seconds", f"activation, {mode}")
    _line(axes[1][0], rows["The epoch, idle"], {"heartbeat s": 0.5}, "replicas", "look p99 s", "a look, p99")
    axes[1][0].set(title="The epoch", xscale="log", yscale="log", xlabel="replicas", ylabel="s")
    for policy in ("least", "sticky", "bounded"):
        _line(axes[1][1], rows["Hot prompts"], {"policy": policy}, "searches/s", "busiest / mean", policy)
    axes[1][1].set(
        title="Hot prompts, 16 replicas",
        xlabel="searches a second",
        ylabel="searches at the busiest, over the mean",
    )
    for each in axes.flat:
        each.legend(fontsize=8)
        each.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def _line(axes: Any, rows: Sequence[Row], having: Row, x: str, y: str, label: str) -> None:
    points = [row for row in rows if all(row[name] == value for name, value in having.items())]
    points = [row for row in points if row[y] is not None and row[y] == row[y]]
    if points:
        axes.plot(
            [row[x] for row in points], [row[y] for row in points], marker="o", markersize=3, label=label
        )
