"""pass@k before and after training: does it add problems that are solved at all, or only sharpen?

Measured of the base and at each run's end alone, since it takes more answers than a curve can pay for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean

from ramify.statistics import paired_difference
from ramify.weights import ModelFiles, load_release
from ramify_trainer.config import MeasureConfig, base_release
from ramify_trainer.gate.policy_scores import Scores, read_scores, score_policy
from ramify_trainer.learning.metrics import pass_at_k
from ramify_trainer.loop.rounds import PhaseProgress
from ramify_trainer.loop.state import STATE, State
from research.compare import trl_grpo
from research.compare.config import ArmRun, CompareConfig
from research.compare.scores import score

KS = (1, 4, 16, 64, 256)
BySeed = Mapping[int, Scores]
"""By seed and problem, the share of the answers that are right."""


def measure_passes(config: CompareConfig, run: ArmRun, out: Path, tell: PhaseProgress) -> None:
    """Draw the answers of a finished run's last policy and of the base, unless they have been drawn."""
    if config.passes is None:
        return
    _measure(base_release(config.base).models, config.passes, run.seed, _of_base(out, run.seed), tell)
    _measure(_last(config, run, out), config.passes, run.seed, _of_run(out, run), tell)


def _of_base(out: Path, seed: int) -> Path:
    return out / f"passes-base-{seed}.json"


def _of_run(out: Path, run: ArmRun) -> Path:
    return out / run.name / "passes.json"


def _last(config: CompareConfig, run: ArmRun, out: Path) -> ModelFiles:
    folder = out / run.name
    if run.arm.trl:
        policy = trl_grpo.policy_after(folder, config.rounds_of(run.arm))
        return ModelFiles(policy, policy)
    state = State.load(folder / "state" / STATE)
    assert state is not None, "the run is finished"
    return load_release(folder / "weights" / state.incumbent, verify=False).models


def _measure(models: ModelFiles, config: MeasureConfig, seed: int, kept: Path, tell: PhaseProgress) -> None:
    def told(done: int, total: int) -> None:
        tell(f"{kept.relative_to(kept.parents[1]).with_suffix('')}: drawn", done, total)

    score(partial(score_policy, models.policy, config, seed, kept, told=told, adapter=models.adapter))


def passes(config: CompareConfig, out: Path) -> list[str]:
    """Tabulate pass@k of the base and of every arm's end, means over the seeds that were measured; and what the largest
    k gains over the base and over the first arm, in points with 95 % bootstrap intervals over the problems of all
    seeds."""
    if config.passes is None:
        return []
    answers, first = config.passes.answers, config.arms[0]
    base = _read((seed, _of_base(out, seed)) for seed in range(max(arm.seeds for arm in config.arms)))
    arms = [(arm, _read((s, _of_run(out, ArmRun(arm, s))) for s in range(arm.seeds))) for arm in config.arms]
    ks = [k for k in KS if k <= answers]
    heads = [f"of {answers} answers", "seeds", *(f"pass@{k}" for k in ks)]
    heads += [f"pass@{ks[-1]} less the base's, points [95 %]", f"less {first.label}'s"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for label, scores in [("base", base), *((arm.label, scores) for arm, scores in arms)]:
        if scores:
            shares = " | ".join(f"{100 * fmean(_passed(scores, answers, k).values()):.1f}" for k in ks)
            others = (base, arms[0][1]) if scores is not base else (base, base)
            gains = " | ".join(_gain(scores, other, answers, ks[-1]) for other in others)
            lines.append(f"| {label} | {len(scores)} | {shares} | {gains} |")
    return lines


def _read(files: Iterator[tuple[int, Path]]) -> BySeed:
    return {seed: scores.mean for seed, path in files if (scores := read_scores(path))}


def _passed(scores: BySeed, answers: int, k: int) -> dict[str, float]:
    """Return the unbiased pass@k of every problem of every seed (Chen et al. 2021, eq. 1)."""
    return {
        f"{seed} {problem}": pass_at_k(answers, round(share * answers), k)
        for seed, shares in scores.items()
        for problem, share in shares.items()
    }


def _gain(ours: BySeed, theirs: BySeed, answers: int, k: int) -> str:
    """Write the gain over the seeds that both have; nothing if they have none, or are the same."""
    if ours is theirs or not ours.keys() & theirs.keys():
        return ""
    return paired_difference(_passed(ours, answers, k), _passed(theirs, answers, k)).percent(signed=True)
