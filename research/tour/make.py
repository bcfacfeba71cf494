"""Make the model of the second task: `python -m research.tour.make`.

One small Llama with a value head on its trunk. It first learns to write tours (cross-entropy on random tours of the
train split, in all eight symmetries); then its own samples are graded, and policy and value are trained on together:
cross-entropy on tours, and that of the value head to the mean outcome of the samples that share a prefix (the Monte
Carlo return, TD(λ) with λ = 1), read at each cell, before the newline or end token that closes its line. Outputs that
are not shipped learn there whether a tour is still left, which a search for one tells, and what the grid looks like:
without them the trunk hardly finds out what makes a walk hopeless.

Shapes: P problems, K answers to each, T tokens, C hidden size.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ramify import weights
from ramify.engines.vllm import multiplies_bfloat16
from ramify.statistics import auc
from ramify.weights import Details, Release
from research.bootstrap.checkpoints import load_model, save_policy
from research.bootstrap.policy import optimizer_for, step_optimizer
from research.bootstrap.rollouts import Rollouts, outcome_targets
from research.bootstrap.sampling import Sampler
from research.bootstrap.tiny_llama import Shape, TinyLlama
from research.bootstrap.tokenizer import BOS, EOS, NEWLINE, word_tokenizer
from research.tour.grids import NAMES, NEIGHBOURS, SIZE, Grid, lost_at, split_of
from research.tour.task import Tour, some

FROM = " from"
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", "\n", FROM, *NAMES, *(f" {name}" for name in NAMES)]
FIRST, LATER = VOCABULARY.index(NAMES[0]), VOCABULARY.index(f" {NAMES[0]}")
"""The token of cell 0 at the start of a line, and after a blank."""
SHAPE = Shape(vocab=len(VOCABULARY), hidden=128, layers=4, heads=4, intermediate=384, positions=96)
CELLS = SIZE * SIZE
BESIDE = np.array(
    [[other in NEIGHBOURS[cell] for other in range(CELLS)] for cell in range(CELLS)], np.float32
)
"""1 for two cells that are neighbours, [cells, cells]."""
MOST_STEPS = CELLS - 7
"""Steps of the longest tour: six cells are blocked, and the start is there."""
BOTH_STEPS = (1_200, 2_000, 3_500)
"""Steps of policy and value together on samples of the policy, which is sampled anew in between."""
ANSWERS = 8
"""Samples of a grid; a step reads half of them."""
GRID_WEIGHT = 10.0
"""Weight of the mean over cells, most of which are no dead ends."""
Ints = NDArray[np.int64]


class Trunk(nn.Module):
    """The policy, and linear heads on its last hidden state: the value, whether a tour is still left, and the grid."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.policy = TinyLlama(SHAPE, SHAPE.vocab)
        self.policy.initialise(torch.Generator().manual_seed(seed))
        self.value, self.has_tour = nn.Linear(SHAPE.hidden, 1), nn.Linear(SHAPE.hidden, 1)
        self.grid = nn.Linear(SHAPE.hidden, 3 * CELLS)
        for head in (self.value, self.has_tour, self.grid):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def states(self, prompts: Ints, answers: Ints) -> Tensor:
        """Return the hidden states [P, K, 1 + T, C] before each token of answers [P, K, T] and after the last; the
        first is the prompt's last. The products are in bfloat16 where the CPU multiplies it, which takes about half
        the time."""
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            prompt, cache = self.policy.read_prompts(torch.from_numpy(prompts))
            answer = self.policy.read_answers(torch.from_numpy(answers), prompts.shape[1], cache)
        return torch.cat([prompt[:, None, -1:].expand(-1, answers.shape[1], -1, -1), answer], dim=2).float()

    def read(self, samples: Rollouts) -> Tensor:
        """Return the hidden states [P, K, T, C] before each token of the samples."""
        return self.states(samples.prompts.astype(np.int64), samples.answers[:, :, :-1].astype(np.int64))


def prompt_tokens(grids: list[Grid]) -> Ints:
    """Return the prompts [P, T] of grids with the same count of blocked cells."""
    rows = []
    for grid in grids:
        blocked = [(FIRST if i == 0 else LATER) + cell for i, cell in enumerate(grid.blocked)]
        rows.append([BOS, *blocked, VOCABULARY.index(FROM), LATER + grid.tour[0], NEWLINE])
    return np.array(rows, dtype=np.int64)


def answer_tokens(grids: list[Grid]) -> Ints:
    """Return the tours [P, 2 · steps] of grids of the same length as tokens."""
    tours = np.array([grid.tour[1:] for grid in grids], dtype=np.int64)
    tokens = np.full((len(grids), tours.shape[1], 2), NEWLINE, dtype=np.int64)
    tokens[:, :, 0] = FIRST + tours
    tokens[:, -1, 1] = EOS
    return tokens.reshape(len(grids), -1)


SYMMETRIES = [
    np.ascontiguousarray(turned).ravel()
    for base in (np.arange(CELLS).reshape(SIZE, SIZE), np.arange(CELLS).reshape(SIZE, SIZE).T)
    for turned in (np.rot90(base, k) for k in range(4))
]


def turned(grid: Grid, rng: np.random.Generator) -> Grid:
    """Return a grid in a random one of the square's eight symmetries, if that is of the train split as well."""
    places = SYMMETRIES[rng.integers(8)]
    blocked = tuple(sorted(int(places[cell]) for cell in grid.blocked))
    tour = tuple(int(places[cell]) for cell in grid.tour)
    return Grid(blocked, tour) if split_of(blocked, tour[0]) == "train" else grid


def batches(grids: list[Grid], size: int, rng: np.random.Generator) -> Iterator[list[Grid]]:
    """Yield batches of grids of one length without end, lengths as often as they occur."""
    groups = defaultdict(list)
    for grid in grids:
        groups[grid.steps].append(grid)
    lengths = list(groups)
    share = np.array([len(groups[n]) for n in lengths]) / len(grids)
    while True:
        group = groups[int(rng.choice(lengths, p=share))]
        yield [turned(group[i], rng) for i in rng.integers(len(group), size=size)]


def policy_loss(trunk: Trunk, grids: list[Grid]) -> Tensor:
    """Return the mean cross-entropy of the tours' tokens."""
    answers = answer_tokens(grids)
    states = trunk.states(prompt_tokens(grids), answers[:, None, :-1])[:, 0]
    logits = F.linear(states, trunk.policy.head)
    return F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(answers).flatten())


@dataclass(frozen=True, slots=True)
class LabelledSamples:
    """Samples [P, K, T], and what is known of their cells: at the token that closes each one's line, [P, K, T]."""

    samples: Rollouts
    ends: NDArray[np.bool_]
    """Where a line is closed."""
    returns: NDArray[np.float32]
    """The mean outcome, in [0, 1], of the samples that share the walk so far."""
    has_tour: NDArray[np.float32]
    """1 where a tour is still left, else 0."""
    grid: NDArray[np.bool_]
    """After each step, of each cell, [P, K, T / 2, 3 · cells]: whether it is free, a dead end, or cut off."""

    def part(self, rows: Ints, columns: Ints) -> LabelledSamples:
        """Return these of the P prompts, and these of their K samples."""
        at = np.ix_(rows, columns)
        labels = (self.ends[at], self.returns[at], self.has_tour[at], self.grid[at])
        return LabelledSamples(self.samples.part(rows, columns), *labels)


def label(samples: Rollouts) -> LabelledSamples:
    """Return samples with the mean outcome of those that share a prefix, and what is left after each cell."""
    _, returns, ends = outcome_targets(samples)
    walks = samples.answers[:, :, ::2].astype(np.int64) - FIRST
    starts = samples.prompts[:, -2].astype(np.int64) - LATER
    free = np.ones((len(walks), CELLS), bool)
    has_tour = np.zeros(samples.answers.shape, np.float32)
    for p, prompt in enumerate(samples.prompts):
        free[p, [*(prompt[1:2] - FIRST), *(prompt[2:-3] - LATER)]] = False
        cells = np.flatnonzero(free[p]).tolist()
        for k, walk in enumerate(walks[p]):
            has_tour[p, k, : 2 * (lost_at(cells, int(starts[p]), walk.tolist()) - 1)] = 1
        free[p, starts[p]] = False
    return LabelledSamples(samples, ends, returns, has_tour, seen_after(walks, free))


def seen_after(walks: Ints, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what each cell is after each step of walks [P, K, S], [P, K, S, 3 · cells]: free, a dead end (not beside
    the walker, with one way on at most), or cut off from the walker. `free`, [P, cells], is so at first."""
    at = walks[..., None] == np.arange(CELLS)
    left = free[:, None, None] & ~np.maximum.accumulate(at, axis=2)
    dead_end = left & (left @ BESIDE < 2) & (at @ BESIDE == 0)
    reached, before = at, None
    while before is None or (reached != before).any():
        before, reached = reached, reached | (left & (reached @ BESIDE > 0))
    return np.concatenate([left, dead_end, left & ~reached], axis=-1)


def value_loss(trunk: Trunk, labelled: LabelledSamples) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy at the cells: of the value head, and of what the trunk is to know."""
    p, k, t = np.nonzero(labelled.ends)
    states = trunk.read(labelled.samples)[p, k, t]
    value, has_tour = (
        F.binary_cross_entropy_with_logits(head(states)[:, 0], torch.from_numpy(target[p, k, t]))
        for head, target in ((trunk.value, labelled.returns), (trunk.has_tour, labelled.has_tour))
    )
    grid = torch.from_numpy(labelled.grid[p, k, t // 2]).float()
    return value, has_tour + GRID_WEIGHT * F.binary_cross_entropy_with_logits(trunk.grid(states), grid)


def roll_out(
    policy: TinyLlama,
    grids: list[Grid],
    answers: int,
    seed: int,
    batch: int = 128,
    temperature: float = 1.0,
) -> list[Rollouts]:
    """Return graded samples of the policy, in groups of `answers`."""
    sampler = Sampler(policy, torch.Generator().manual_seed(seed), temperature)
    groups, parts = defaultdict(list), []
    for grid in grids:
        groups[grid.steps].append(grid)
    for steps, group in groups.items():
        for start in range(0, len(group), batch):
            some_of = group[start : start + batch]
            prompts = prompt_tokens(some_of)
            written = sampler(prompts, answers, 2 * steps)
            outcomes = [
                [grade(grid, row) for row in rows] for grid, rows in zip(some_of, written, strict=True)
            ]
            parts.append(
                Rollouts(
                    prompts.astype(np.int16), written.astype(np.int16), np.array(outcomes, np.float32), steps
                )
            )
    return parts


def grade(grid: Grid, tokens: Ints) -> float:
    """Return 1 for a whole tour that ends with the end token, else 0."""
    if EOS not in tokens:
        return 0.0
    text = "".join(VOCABULARY[token] for token in tokens[: list(tokens).index(EOS)])
    return Tour.of(grid.problem).grade(text).outcome


def train_policy(trunk: Trunk, grids: list[Grid], steps: int, batch: int, rate: float, seed: int) -> None:
    """Train the policy alone, in place."""
    stream = batches(grids, batch, np.random.default_rng(seed))
    optimizer = optimizer_for(trunk, rate, 0.05)
    for step in range(steps):
        loss = policy_loss(trunk, next(stream))
        loss.backward()  # type: ignore[no-untyped-call]
        step_optimizer(optimizer, trunk, step, steps, rate, 50)
        tell("policy", step, steps, loss)


def train_both(
    trunk: Trunk,
    grids: list[Grid],
    parts: list[LabelledSamples],
    steps: int,
    batch: int,
    rate: float,
    seed: int,
) -> None:
    """Train policy and value together, in place."""
    rng = np.random.default_rng(seed)
    stream = batches(grids, batch, rng)
    sizes = np.array([len(part.ends) for part in parts])
    optimizer = optimizer_for(trunk, rate, 0.05)
    for step in range(steps):
        which = int(rng.choice(len(parts), p=sizes / sizes.sum()))
        rows = rng.choice(sizes[which], min(int(sizes[which]), max(1, batch // 4)), replace=False)
        drawn = parts[which].ends.shape[1]
        columns = rng.choice(drawn, max(1, drawn // 2), replace=False)
        value, auxiliary = value_loss(trunk, parts[which].part(rows, columns))
        loss = policy_loss(trunk, next(stream)) + value + auxiliary
        loss.backward()  # type: ignore[no-untyped-call]
        step_optimizer(optimizer, trunk, step, steps, rate, 50)
        tell("policy and value", step, steps, value)


def tell(what: str, step: int, steps: int, loss: Tensor) -> None:
    """Print progress every hundred steps."""
    if (step + 1) % 100 == 0 or step + 1 == steps:
        typer.echo(f"{time.strftime('%H:%M:%S')} {what}: {step + 1} of {steps}, loss {loss.item():.3f}")


@torch.inference_mode()
def figures(trunk: Trunk, grids: list[Grid], answers: int) -> dict[str, float]:
    """Return the share of right samples (`pass_1`), of grids with one (`any`), and how well the value head ranks the
    samples after every fifth step and at the end (`auc_…`)."""
    rolled = roll_out(trunk.policy, grids, answers, seed=1)
    outcomes = np.concatenate([part.outcomes for part in rolled])
    measured = {"pass_1": float(outcomes.mean()), "any": float(outcomes.max(axis=1).mean())}
    scored: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for part in rolled:
        values = trunk.value(trunk.read(part))[..., 0].numpy()
        for step in (*range(5, part.count, 5), part.count):
            name = f"auc_step_{step}" if step < part.count else "auc_end"
            scored[name] += zip(values[:, :, 2 * step - 1].ravel(), part.outcomes.ravel(), strict=True)
    for name, pairs in sorted(scored.items()):
        value, right = (np.array(one) for one in zip(*pairs, strict=True))
        area = auc(value, right == 1)
        if area is not None:
            measured[name] = area
    return measured


def publish(trunk: Trunk, root: Path, metrics: dict[str, float]) -> Release:
    """Publish the network in `root` as a release whose value is a head on its trunk."""
    with TemporaryDirectory() as work:
        policy, head = Path(work) / "policy", Path(work) / "head.safetensors"
        save_policy(trunk.policy, policy, word_tokenizer(VOCABULARY, SHAPE.positions))
        tensors = {"weight": trunk.value.weight, "bias": trunk.value.bias}
        save_file({name: tensor.detach().float() for name, tensor in tensors.items()}, head)
        details = Details(
            name="tour", default_task="tour", default_max_tokens=2 * MOST_STEPS, metrics=metrics
        )
        return weights.publish(root, policy, head, details)


def load(release: Path) -> Trunk:
    """Return the network of a release that `publish` made, without the outputs that are not shipped."""
    trunk = Trunk(0)
    trunk.policy = load_model(release / "policy", "lm_head")
    trunk.value.load_state_dict(load_file(release / "value" / "head.safetensors"))
    return trunk


def main(
    out: Annotated[Path, typer.Option(help="Directory of the release.")] = Path("runs/tour"),
    grids: Annotated[int, typer.Option(help="Grids of the train split.")] = 18_000,
    policy_steps: int = 1_200,
    both_steps: Annotated[
        list[int] | None,
        typer.Option(
            help="Steps of policy and value. Repeat it: the policy is sampled anew before each.",
            show_default="1200 2000 3500",
        ),
    ] = None,
    sampled: Annotated[int, typer.Option(help="Grids sampled each time, to teach the value head.")] = 4_000,
    seed: int = 0,
) -> None:
    """Make the model; about an hour and a quarter of one core that multiplies bfloat16."""
    turns = both_steps or BOTH_STEPS
    if grids < len(turns) * sampled:
        raise typer.BadParameter(
            f"--grids must be {len(turns) * sampled} at least: {sampled} for each --both-steps"
        )
    if multiplies_bfloat16():
        torch.set_num_threads(1)  # a second gains nothing there
    train, dev = some("train", seed, grids), some("dev", seed, 300)
    typer.echo(f"{time.strftime('%H:%M:%S')} {len(train)} grids")
    trunk = Trunk(seed)
    train_policy(trunk, train, policy_steps, 64, 2e-3, seed)
    for i, steps in enumerate(turns):
        tell_figures(figures(trunk, dev, 8))
        asked = train[i * sampled : (i + 1) * sampled]
        rolled = roll_out(trunk.policy.eval(), asked, ANSWERS, seed + i)
        train_both(trunk, train, [label(part) for part in rolled], steps, 64, 1e-3, seed + i)
    measured = figures(trunk, dev, 16)
    tell_figures(measured)
    typer.echo(f"published {publish(trunk, out, measured).path}")


def tell_figures(measured: dict[str, float]) -> None:
    """Print figures, one a line."""
    for name, figure in measured.items():
        typer.echo(f"{name} {figure:.3f}")


if __name__ == "__main__":
    typer.run(main)
