"""The report of a run: a table, the same as JSON, and the curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ramify.statistics import paired_difference
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.loop.state import RoundRecord

HELD_OUT = "held-out greedy | held-out mean@k"


def markdown(history: Sequence[RoundRecord], held_out: Mapping[str, PolicyScores]) -> str:
    """Return a table of one line a round; held-out figures of the releases that were served."""
    lines = [
        f"| round | release | trees | steps | tokens | train s | gate s | canary s | gate | served | {HELD_OUT} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = next(iter(held_out))
    lines.append(f"| base | {base} | | | | | | | | yes | {_pair(held_out.get(base))} |")
    for r in history:
        served = "yes" if r.promoted else "no"
        lines.append(
            f"| {r.round} | {r.release} | {r.trees} | {r.steps} | {r.tokens} | {_seconds(r)} | {r.reason} | {served} "
            f"| {_pair(held_out.get(r.release or ''))} |"
        )
    return "\n".join(lines) + "\n" + _gained([*held_out.values()])


def _gained(served: Sequence[PolicyScores]) -> str:
    """Return the gain from the first release served to the last, paired by problem, with 95 % bootstrap intervals."""
    if len(served) < 2:
        return ""
    first, last = served[0], served[-1]
    greedy = paired_difference(last.greedy, first.greedy).percent(signed=True)
    mean = paired_difference(last.mean, first.mean).percent(signed=True)
    return f"\nThe last release served less the base, points [95 %]: greedy {greedy}, mean@k {mean}.\n"


def _seconds(record: RoundRecord) -> str:
    """Return the seconds of training, of the gate, and in which the canary was chosen."""
    phases = [record.seconds.get(phase, 0.0) for phase in ("train", "gate")]
    return " | ".join(f"{seconds:.1f}" for seconds in (*phases, record.canary_seconds))


def _pair(scores: PolicyScores | None) -> str:
    if scores is None:
        return " | "
    figures = scores.figures()
    return f"{100 * figures['greedy']:.1f} | {100 * figures['mean_at_k']:.1f}"


def write(
    folder: Path,
    history: Sequence[RoundRecord],
    held_out: Mapping[str, PolicyScores],
    head: Mapping[str, object],
) -> None:
    """Write `results.md`, `results.json`, `curve.png` and `curve.svg` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {release: scores.figures() for release, scores in held_out.items()}
    whole = {**head, "rounds": [r.model_dump() for r in history], "held_out": figures}
    (folder / "results.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(history, held_out), encoding="utf-8")
    _plot(folder, list(figures.values()))


def _plot(folder: Path, figures: Sequence[Mapping[str, float]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, label in (("greedy", "greedy"), ("mean_at_k", "mean@k")):
        axes.plot(range(len(figures)), [100 * f[name] for f in figures], marker="o", label=label)
    axes.set_xlabel("releases served, the base first")
    axes.set_ylabel("right without search, %, held-out problems")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    for kind in ("png", "svg"):
        drawing.savefig(folder / f"curve.{kind}", dpi=150)
    pyplot.close(drawing)
