"""Plot of what mattered: the importance of each tuned parameter, a panel for each study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ramify.evaluation.plot import COLOURS, STYLE
from ramify.tuning.found import Found


def plot(best: Sequence[Found], folder: Path, name: str = "importance") -> list[Path]:
    """Write PNG and SVG; the paths written. None if no study had enough trials."""
    panels = [one for one in best if one.importance]
    if not panels:
        return []
    with mpl.rc_context(STYLE):
        height = max(len(one.importance) for one in panels)
        canvas = Figure(figsize=(4.2 * len(panels), 0.28 * height + 1.2), layout="constrained")
        FigureCanvasAgg(canvas)
        for one, ax in zip(panels, canvas.subplots(1, len(panels), squeeze=False)[0], strict=True):
            shares = sorted(one.importance.items(), key=lambda pair: pair[1])
            ax.barh([key for key, _ in shares], [share for _, share in shares], color=COLOURS[4])
            ax.set_title(f"{one.arm}, {one.budget.label}: {one.trials} trials")
            ax.set_xlabel("share in what tells good trials")
            ax.spines[["top", "right"]].set_visible(False)
        paths = [folder / f"{name}.png", folder / f"{name}.svg"]
        canvas.savefig(paths[0], dpi=150)
        canvas.savefig(paths[1], metadata={"Date": None})
    return paths
