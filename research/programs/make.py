"""Make the model of small programs: `python -m research.programs.make`.

One small Llama with a value head on its trunk. It first learns to write the programs of train problems, to say what the
lines of other programs come to, and to better programs with a changed line, given the feedback on them, whose words it
learns to predict as well. Then its own samples are graded, at problems and at their wrong answers with feedback, and
policy and value are trained on together, the value head on the mean outcome of the samples that share a prefix and on
the ends of programs that are drawn. Each stage leaves a checkpoint in OUT/work, from which a run that was stopped goes
on if it is given the same options.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ramify import weights
from ramify.engines.vllm import multiplies_bfloat16
from ramify.statistics import auc
from ramify.weights import Details, Release
from ramify_trainer.learning.value_head import write_head
from research.bootstrap.checkpoints import save_policy
from research.bootstrap.policy import optimizer_for, step_optimizer
from research.programs.feedback import feedback, grade
from research.programs.language import text
from research.programs.network import Network, sample
from research.programs.problems import Problem, draw_problems, problems
from research.programs.texts import (
    Sampled,
    Texts,
    bettered,
    ended,
    executed,
    judged,
    mutated,
    prompt_tokens,
    refine_tokens,
    solved,
)
from research.programs.tokens import EOS, LONGEST_ANSWER, NEWLINE, TEMPLATE, build_tokenizer, decode

LINES = (1, 2, 3)
Pair = tuple[Problem, str]


@dataclass(frozen=True, slots=True)
class Pool:
    """Problems of the train split."""

    by_lines: dict[int, list[Problem]]
    rng: random.Random

    @classmethod
    def drawn(cls, count: int, seed: int) -> Pool:
        """Draw a pool: `count` problems of three lines, a tenth as many of two, and few of one."""
        sizes = {1: 100, 2: max(count // 10, 1), 3: count}
        drawn = {n: list(islice(draw_problems("train", n, seed), sizes[n])) for n in LINES}
        return cls(drawn, random.Random(seed))

    def problems(self, count: int, shares: Sequence[float]) -> list[Problem]:
        """Return problems of one, two and three lines, as often as `shares` says."""
        lines = self.rng.choices(LINES, shares, k=count)
        return [self.rng.choice(self.by_lines[n]) for n in lines]

    def pairs(self, count: int, shares: Sequence[float]) -> list[Pair]:
        """Return problems, at least one, with programs in which a line is changed."""
        return [(p, text(mutated(p.program, self.rng))) for p in self.problems(max(count, 1), shares)]


def shares(done: float) -> tuple[float, float, float]:
    """Return how often problems have one, two and three lines when so much of the first stage is done: easy ones
    first."""
    return (0.3, 0.6, 0.1) if done < 0.15 else (0.05, 0.35, 0.6)


def train(
    network: Network,
    batches: Iterator[list[Texts]],
    steps: int,
    rate: float,
    name: str,
) -> None:
    """Train in place. batches: what each step sees, one after another, to bound memory."""
    optimizer = optimizer_for(network, rate, 0.05)
    mean: dict[str, float] = defaultdict(float)
    for step, batch in enumerate(islice(batches, steps)):
        for kind, texts in enumerate(batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
                policy, value = network.losses(texts)
            (policy + value).backward()  # type: ignore[no-untyped-call]
            for what, loss in (("policy", policy), ("value", value)):
                if loss.item():
                    mean[f"{what} {kind}"] += (
                        0.02 * (loss.item() - mean[f"{what} {kind}"]) if step else loss.item()
                    )
        step_optimizer(optimizer, network, step, steps, rate, 50)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            tell(f"{name}: {step + 1} of {steps}: " + ", ".join(f"{k} {v:.3f}" for k, v in mean.items()))


def policy_batches(pool: Pool, steps: int, batch: int) -> Iterator[list[Texts]]:
    """Yield what the first stage learns from: solved problems, what the lines of programs with a changed line come to,
    and such programs bettered."""
    for step in range(steps):
        now = shares(step / steps)
        yield [
            solved(pool.problems(batch, now)),
            executed(pool.pairs(batch // 2, now)),
            bettered(pool.pairs(batch // 8, now)),
        ]


def both_batches(
    pool: Pool, groups: Sequence[Sampled], pairs: Sequence[Pair], batch: int
) -> Iterator[list[Texts]]:
    """Yield what the last stage learns from: the same with the policy's own wrong answers, and its graded samples."""
    rng, now = pool.rng, shares(1)
    own = pairs or pool.pairs(batch, now)  # an untrained policy writes nothing that can be run
    while True:
        wrong = [*pool.pairs(batch // 16, now), *rng.choices(own, k=batch // 4)]
        right, other = pool.problems(batch // 2, now), pool.pairs(batch // 4, now)
        yield [
            ended(solved(right), [1.0] * len(right)),
            ended(executed(other), [grade(*pair) for pair in other]),
            bettered(wrong),
            judged(rng.choices(groups, k=max(1, batch // 8))),
        ]


def rolled_out(network: Network, pool: Pool, count: int, seed: int) -> tuple[list[Sampled], list[Pair]]:
    """Sample answers to `count` problems, and to the request to better wrong ones; return both, and the wrong ones."""
    asked = [(problem, prompt_tokens(problem)) for problem in pool.problems(count, shares(1))]
    groups = sample(network.policy, asked, 8, seed)
    pairs = [pair for wrong in map(wrong_of, groups) for pair in pool.rng.sample(wrong, min(2, len(wrong)))]
    again = pool.rng.sample(pairs, min(len(pairs), count // 2))
    return groups + sample(network.policy, refining(again), 8, seed + 1), pairs


def wrong_of(group: Sampled) -> list[Pair]:
    """Return the wrong answers that can be run."""
    bodies = {
        decode(list(answer))
        for answer, outcome in zip(group.answers, group.outcomes, strict=True)
        if not outcome and answer[-1] == EOS
    }
    return [(group.problem, body) for body in sorted(bodies) if feedback(group.problem, body) is not None]


def refining(pairs: Sequence[Pair]) -> list[tuple[Problem, list[int]]]:
    """Return the prompts that ask for answers better than these."""
    return [
        (problem, refine_tokens(problem, body, said))
        for problem, body in pairs
        if (said := feedback(problem, body)) is not None
    ]


@torch.inference_mode()
def figures(network: Network, held_out: Sequence[Problem], answers: int) -> dict[str, float]:
    """Return what the policy solves of problems, greedily, by a sample and by any of `answers`; by a sample after
    feedback on a wrong one beside another sample at the same problems; and how the value head ranks samples by
    outcome, after each line and at the end."""
    asked = [(problem, prompt_tokens(problem)) for problem in held_out]
    greedy = sample(network.policy, asked, 1, 0, temperature=0)
    groups = sample(network.policy, asked, answers, 1)
    measured = {"greedy": _mean(greedy), "pass_1": _mean(groups)}
    measured["any"] = float(np.mean([max(group.outcomes) for group in groups]))
    first = {group.problem: wrong[0] for group in groups if (wrong := wrong_of(group))}
    if first:
        measured["refined"] = _mean(sample(network.policy, refining(list(first.values())), answers, 2))
        measured["not_refined"] = _mean([group for group in groups if group.problem in first])
    return {**measured, **_ranking(network, groups)}


def _mean(groups: Sequence[Sampled]) -> float:
    return float(np.mean([np.mean(group.outcomes) for group in groups])) if groups else 0.0


def _ranking(network: Network, groups: Sequence[Sampled]) -> dict[str, float]:
    """Return the AUC of the value head after each line of the samples and at the end."""
    scored: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for group in groups:
        texts = judged([group])
        states, _ = network.policy.read_prompts(torch.from_numpy(texts.tokens))
        values = network.value(states)[..., 0].numpy()
        for row, answer, outcome in zip(values, group.answers, group.outcomes, strict=True):
            ends = [i for i, token in enumerate(answer) if token in (NEWLINE, EOS)]
            for line, end in enumerate(ends, 1):
                name = f"auc_line_{line}" if answer[end] == NEWLINE else "auc_end"
                scored[name].append((row[len(group.prompt) + end - 1], outcome))
    areas = {}
    for name, pairs in sorted(scored.items()):
        value, right = (np.array(one) for one in zip(*pairs, strict=True))
        areas[name] = auc(value, right == 1)
    return {name: area for name, area in areas.items() if area is not None}


def publish(network: Network, root: Path, metrics: dict[str, float]) -> Release:
    """Publish the network in `root` as a release whose value is a head on its trunk."""
    with TemporaryDirectory() as work:
        policy, head = Path(work) / "policy", Path(work) / "value"
        save_policy(network.policy, policy, build_tokenizer())
        write_head(head, {"weight": network.value.weight.detach(), "bias": network.value.bias.detach()})
        details = Details(
            name="programs",
            default_max_tokens=LONGEST_ANSWER,
            refine_template=TEMPLATE,
            metrics=metrics,
        )
        return weights.publish(root, policy, head / "head.safetensors", details)


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages that are done, in files."""

    work: Path
    network: Network
    options: dict[str, int]
    """Options that have made the network so far, kept beside each stage."""

    def done(self, name: str, **options: int) -> bool:
        """Take over the network of a stage that an earlier run has finished with the same options, if one has.
        options: those that this stage adds."""
        self.options.update(options)
        if not self._path(name).is_file():
            return False
        with safe_open(self._path(name), "pt") as kept:
            if kept.metadata() != self._made_with():
                tell(f"{name}: done before with other options, so it is made again")
                return False
        self.network.load_state_dict(load_file(self._path(name)))
        tell(f"{name}: done before")
        return True

    def keep(self, name: str) -> None:
        """Keep the network as the result of a stage."""
        self.work.mkdir(parents=True, exist_ok=True)
        save_file(self.network.state_dict(), self._path(name), self._made_with())

    def _made_with(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.options.items()}

    def _path(self, name: str) -> Path:
        return self.work / f"{name}.safetensors"


def tell(line: str) -> None:
    """Print a line of progress."""
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}")


def main(
    out: Annotated[Path, typer.Option(help="Directory of the release; OUT/work keeps the stages.")] = Path(
        "runs/programs"
    ),
    pool: Annotated[int, typer.Option(help="Problems of three lines that are learned from.")] = 100_000,
    weak_steps: Annotated[int, typer.Option(help="Steps of a weak policy, published in OUT/weak.")] = 700,
    policy_steps: int = 2_600,
    both_steps: Annotated[int, typer.Option(help="Steps for policy and value together.")] = 250,
    sampled: Annotated[int, typer.Option(help="Problems that are sampled before that.")] = 2_500,
    batch: Annotated[int, typer.Option(min=2)] = 128,
    held_out: Annotated[int, typer.Option(help="Dev problems that figures are taken of.")] = 200,
    seed: int = 0,
) -> None:
    """Make the model; about an hour of one core."""
    torch.set_num_threads(1)
    network, train_pool = Network(seed), Pool.drawn(pool, seed)
    tell(f"{pool} problems of three lines")
    dev = problems("dev", held_out, seed)
    stages = Stages(out / "work", network, {"pool": pool, "batch": batch, "seed": seed})
    for name, steps in (("weak", weak_steps), ("policy", policy_steps)):
        done = stages.done(name, **{f"{name}_steps": steps})
        if not done:
            train(network, policy_batches(train_pool, steps, batch), steps, 2e-3, name)
            stages.keep(name)
        if name == "weak" and not (done and (out / "weak").exists()):
            publish(network, out / "weak", report(figures(network, dev, 16)))
    if not stages.done("both", sampled=sampled, both_steps=both_steps):
        groups, pairs = rolled_out(network, train_pool, sampled, seed + 1)
        tell(f"sampled: {_mean(groups):.3f} of the answers are right, {len(pairs)} wrong ones to better")
        train(network, both_batches(train_pool, groups, pairs, batch), both_steps, 1e-3, "both")
        stages.keep("both")
    typer.echo(f"published {publish(network, out, report(figures(network, dev, 16))).path}")


def report(measured: dict[str, float]) -> dict[str, float]:
    """Print figures, one a line, and return them."""
    for name, figure in measured.items():
        typer.echo(f"  {name} {figure:.3f}")
    return measured


if __name__ == "__main__":
    typer.run(main)
