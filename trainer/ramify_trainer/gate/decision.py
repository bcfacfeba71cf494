"""Decide whether a candidate is served: it is, unless shown to be worse than the incumbent or the best so far.

A harm test: a candidate is rejected if the upper end of a one-sided 95 % interval of some figure's difference lies
below minus the margin, that is if it is worse by more than the margin with 95 % confidence. Noise alone then seldom
rejects one, and a small gate rejects less instead of rejecting what it cannot measure; `power` says how much.
(2026-11-28: the lower end had to lie above minus the margin, which threw away most rounds that were truly better.)

Both comparisons are paired by problem, on the dev split, without search. Comparing with the best so far as well keeps a
margin from ratcheting down: a series of candidates each a little worse than the last would otherwise all pass. Greedy
accuracy is one answer a problem, the noisiest figure, and has a wider margin of its own. The comparisons of the value
models come from `value_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ramify.statistics import upper_bound
from ramify_trainer.gate.policy_scores import PolicyScores, Scores


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate less the other, over the same problems."""

    against: str
    """`incumbent` or `best`."""
    figure: str
    """`greedy`, `mean`, `value_auc`, `value_auc_steps` or `value_brier`; the last with its sign turned, so that more is
    better."""
    difference: float
    high: float
    """Upper end of the one-sided 95 % bootstrap interval: with 95 % confidence the candidate is no better than that."""
    margin: float
    """Largest loss that still passes; at 1 anything passes, since nothing is worse by more."""

    @property
    def passed(self) -> bool:
        return self.high >= -self.margin


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The gate's ruling on a candidate, and the comparisons that it rests on."""

    promoted: bool
    comparisons: tuple[Comparison, ...]

    @property
    def reason(self) -> str:
        """The decision in one line, for people."""
        worst = min(self.comparisons, key=lambda c: c.high + c.margin)
        ruling = "promoted" if self.promoted else "rejected"
        return (
            f"{ruling}: at worst {worst.figure} {worst.difference:+.3f} against the {worst.against}, "
            f"at best {worst.high:+.3f} with 95 % confidence, margin {-worst.margin:+.3f}"
        )

    def figures(self) -> dict[str, float]:
        """Return the decision and its comparisons as numbers, for the record."""
        figures = {"promoted": float(self.promoted)}
        for c in self.comparisons:
            figures[f"{c.figure}_margin"] = c.margin
            figures[f"{c.figure}_against_{c.against}"] = c.difference
            figures[f"{c.figure}_against_{c.against}_high"] = c.high
        return figures


def decide(
    candidate: PolicyScores,
    incumbent: PolicyScores,
    best: PolicyScores,
    margin: float,
    seed: int,
    also: Sequence[Comparison] = (),
    greedy_margin: float = 1.0,
) -> GateDecision:
    """Promote the candidate unless a comparison shows harm.

    margin: of mean@k; also: comparisons of the value models. Raises `ValueError` if problems differ."""
    margins = {"greedy": greedy_margin, "mean": margin}
    comparisons = _against("incumbent", candidate, incumbent, margins, seed)
    if best == incumbent:
        comparisons += [replace(one, against="best") for one in comparisons]
    else:
        comparisons += _against("best", candidate, best, margins, seed)
    every = (*comparisons, *also)
    return GateDecision(all(c.passed for c in every), every)


def _against(
    against: str, candidate: PolicyScores, other: PolicyScores, margins: Mapping[str, float], seed: int
) -> list[Comparison]:
    return [
        _compare(against, figure, getattr(candidate, figure), getattr(other, figure), margin, seed)
        for figure, margin in margins.items()
    ]


def _compare(against: str, figure: str, ours: Scores, theirs: Scores, margin: float, seed: int) -> Comparison:
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(f"{figure}: the candidate and the {against} were not measured on the same problems")
    differences = [ours[key] - theirs[key] for key in sorted(ours)]
    return Comparison(against, figure, fmean(differences), upper_bound(differences, seed), margin)
