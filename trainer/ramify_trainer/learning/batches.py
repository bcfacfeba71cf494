"""Which pieces make up each optimizer step, and several pieces as the rows of one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramify_trainer.learning.packing import Piece, Reading, ints

__all__ = ["Batch", "Places", "collate", "idle", "plan", "share", "total_weight"]

WEIGHTS = ("weight", "imitated")
"""Columns of a reading that are weights: of its loss, and of the imitation beside it."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Places of a batch at which one output of the network is read, k of them."""

    at: Tensor
    """[k], places in the flattened rows."""
    labels: Tensor
    """[k]"""
    columns: Mapping[str, Tensor]
    """[k] each, float32."""

    def to(self, device: torch.device) -> Places:
        columns = {name: column.to(device) for name, column in self.columns.items()}
        return Places(self.at.to(device), self.labels.to(device), columns)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows [R, L] for one forward pass; pieces that share a row do not see each other."""

    tokens: Tensor
    """[R, L]"""
    positions: Tensor
    """[R, L]"""
    mask: Tensor | None
    """[R, 1, L, L], whether a token attends to another; None: each row is one path, padded at its end."""
    readings: Mapping[str, Places]
    """By output: `policy`, `value`, or both."""

    def to(self, device: torch.device) -> Batch:
        mask = None if self.mask is None else self.mask.to(device)
        readings = {name: places.to(device) for name, places in self.readings.items()}
        return Batch(self.tokens.to(device), self.positions.to(device), mask, readings)


def plan(sizes: Sequence[int], tokens: int, steps: int, epochs: float, seed: int) -> list[list[int]]:
    """Return the pieces of every optimizer step, as indices: each pass in a fresh order, cut into batches of about
    `tokens` and of about one size; at most `steps` of them, and at most `epochs` passes (but one step at least)."""
    if not sizes:
        return []
    order = np.random.default_rng(seed)
    a_pass = max(1, round(sum(sizes) / tokens))
    wanted = min(steps, max(1, int(epochs * a_pass)))
    batches: list[list[int]] = []
    while len(batches) < wanted:
        shuffled = order.permutation(len(sizes))
        ends = np.cumsum([sizes[i] for i in shuffled])
        cut = np.minimum(((ends - 1) * a_pass) // ends[-1], a_pass - 1)
        parts = [shuffled[cut == i].tolist() for i in range(a_pass)]
        batches += [part for part in parts if part]
    return batches[:wanted]


def share(pieces: Sequence[Piece], parts: int) -> list[list[Piece]]:
    """Return `parts` groups of about as many tokens each; some may be empty."""
    groups: list[list[Piece]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for piece in sorted(pieces, key=len, reverse=True):
        least = sizes.index(min(sizes))
        groups[least].append(piece)
        sizes[least] += len(piece)
    return groups


def total_weight(pieces: Sequence[Piece], output: str, column: str = "weight") -> float:
    """Return the weighted count of the places at which an output is read, by one of its columns of weights."""
    return float(sum(piece.readings[output].columns[column].sum(dtype=np.float64) for piece in pieces))


def idle(piece: Piece) -> Piece:
    """Return the piece without weight, for a process that has nothing to do while the others have."""

    def weightless(reading: Reading) -> Reading:
        weights = {name: 0 * reading.columns[name] for name in WEIGHTS if name in reading.columns}
        return replace(reading, columns={**reading.columns, **weights})

    return replace(piece, readings={name: weightless(each) for name, each in piece.readings.items()})


def collate(pieces: Sequence[Piece], packed: bool = True) -> Batch:
    """Pack pieces into rows as long as the longest, first fit by falling length; or give each path a row of its own."""
    length = max(map(len, pieces))
    sizes = [len(p) for p in pieces]
    placed, rows = _place(sizes, length) if packed else ([(i, 0) for i in range(len(pieces))], len(pieces))
    tokens = np.zeros((rows, length), dtype=ints)
    positions = np.zeros((rows, length), dtype=ints)
    for piece, (row, start) in zip(pieces, placed, strict=True):
        here = slice(start, start + len(piece))
        tokens[row, here], positions[row, here] = piece.tokens, piece.positions
    starts = [row * length + start for row, start in placed]
    return Batch(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        _mask(pieces, placed, rows, length) if packed else None,
        {name: _places([p.readings[name] for p in pieces], starts) for name in pieces[0].readings},
    )


def _places(readings: Sequence[Reading], starts: Sequence[int]) -> Places:
    """Return the readings of one output of several pieces, which begin at `starts` of the flattened rows."""

    def joined(arrays: Iterable[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate(list(arrays)))

    return Places(
        joined(reading.at + start for reading, start in zip(readings, starts, strict=True)),
        joined(reading.labels for reading in readings),
        {name: joined(r.columns[name] for r in readings) for name in readings[0].columns},
    )


def _mask(pieces: Sequence[Piece], placed: Sequence[tuple[int, int]], rows: int, length: int) -> Tensor:
    mask = np.zeros((rows, 1, length, length), dtype=np.bool_)
    mask[:, :, np.arange(length), np.arange(length)] = True  # padding sees itself: a row of nothing is NaN
    for piece, (row, start) in zip(pieces, placed, strict=True):
        here = slice(start, start + len(piece))
        mask[row, 0, here, here] = piece.mask()
    return torch.from_numpy(mask)


def _place(sizes: Sequence[int], length: int) -> tuple[list[tuple[int, int]], int]:
    """Return row and first place of each piece, and the number of rows."""
    used: list[int] = []
    places = [(0, 0)] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        row = next((r for r, taken in enumerate(used) if taken + sizes[i] <= length), len(used))
        if row == len(used):
            used.append(0)
        places[i] = (row, used[row])
        used[row] += sizes[i]
    return places, len(used)
