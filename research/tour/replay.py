"""Replay of what giving walks up saves and costs, with no engine: `python -m research.tour.replay`.

Some walks of each grid are drawn once. A budget then buys them one after another, in random orders, as `abandon` would:
once a walk has come to its end, a later one is given up after the first step at which its value falls below a share
(`abandon_below`) of the hurdle, the prompt's value times the part of the walk that is left. Counted is how often one of
the walks that came to their end is right, so the judge of finished walks has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from research.bootstrap.rollouts import Rollouts
from research.tour.make import Trunk, load, roll_out
from research.tour.task import some

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
BUDGETS = (150, 300, 600, 1_000)


@dataclass(frozen=True, slots=True)
class Walks:
    """The K walks of one grid, of S steps each."""

    values: NDArray[np.float32]
    """After each step, [K, S]."""
    outcomes: NDArray[np.float32]
    """1 for a tour, else 0: [K]."""
    at_start: float
    """The prompt's value."""

    def ends(self, share: float) -> NDArray[np.int64]:
        """Return the step after which each walk is given up, from 1; the last one if it is not."""
        steps = self.values.shape[1]
        hurdle = share * self.at_start * (1 - np.arange(1, steps + 1) / steps)
        below = self.values < hurdle
        return np.where(below.any(axis=1), below.argmax(axis=1) + 1, steps)


@torch.inference_mode()
def walks_of(trunk: Trunk, part: Rollouts) -> list[Walks]:
    """Return the walks of each prompt with their values."""
    values: NDArray[np.float32] = torch.sigmoid(trunk.value(trunk.read(part))[..., 0]).numpy()
    return [
        Walks(values[i, :, 1::2], outcomes, float(values[i, 0, 0]))
        for i, outcomes in enumerate(part.outcomes)
    ]


def is_solved(walks: Walks, ends: NDArray[np.int64], order: Sequence[int], tokens: int) -> bool:
    """Tell whether a right walk comes to its end before the tokens are spent; a step is two. ends: steps that each walk
    takes once another has come to its end."""
    steps = walks.values.shape[1]
    ended = False
    for walk in order:
        if tokens < 2 * steps:
            return False
        taken = int(ends[walk]) if ended else steps
        tokens -= 2 * taken
        if taken == steps:
            ended = True
            if walks.outcomes[walk]:
                return True
    return False


def main(
    release: Annotated[Path, typer.Option(help="Release of `python -m research.tour.make`.")] = Path(
        "runs/tour/v000001"
    ),
    grids: Annotated[int, typer.Option(min=1, help="Grids of the dev split.")] = 200,
    walks: Annotated[int, typer.Option(min=1, help="Walks drawn of each.")] = 32,
    temperature: Annotated[float, typer.Option(min=0.1, max=2.0)] = 0.6,
    orders: Annotated[int, typer.Option(min=1, help="Random orders in which they are bought.")] = 60,
    seed: int = 0,
) -> None:
    """Print the share of grids that are solved, for each budget and share of the hurdle."""
    torch.set_num_threads(1)
    trunk = load(release)
    parts = roll_out(trunk.policy, some("dev", seed + 3, grids), walks, seed, temperature=temperature)
    drawn = [own for part in parts for own in walks_of(trunk, part)]
    rng = np.random.default_rng(seed)
    bought = [[rng.permutation(walks).tolist() for _ in range(orders)] for _ in drawn]
    typer.echo("tokens  " + "  ".join(f"{share:5g}" for share in SHARES))
    solved = np.array(
        [[_solved(own, its, share) for share in SHARES] for own, its in zip(drawn, bought, strict=True)]
    )
    for tokens, row in zip(BUDGETS, solved.mean(axis=0).T, strict=True):
        typer.echo(f"{tokens:6}  " + "  ".join(f"{100 * one:5.1f}" for one in row))


def _solved(walks: Walks, orders: Sequence[Sequence[int]], share: float) -> list[float]:
    """Return the share of the orders in which each budget solves a grid."""
    ends = walks.ends(share)
    return [float(np.mean([is_solved(walks, ends, order, tokens) for order in orders])) for tokens in BUDGETS]


if __name__ == "__main__":
    typer.run(main)
