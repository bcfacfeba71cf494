"""A network on its device, read at the places that batches name; one process, data parallel, or sharded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from ramify_trainer.learning.batches import Batch, collate
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.networks import Network
from ramify_trainer.learning.packing import Piece

__all__ = ["Reader"]


class Reader:
    """A network, ready to be called."""

    def __init__(self, network: Network, config: LearningConfig, accelerator: Accelerator) -> None:
        self.network = network
        """The plain network; where it trains, its parameters are those in training."""
        self.config = config
        self.packs = True
        """True: trees are packed; else they are read path by path."""
        self.accelerator = accelerator
        trains = any(p.requires_grad for p in network.parameters())
        if not trains:
            self.wrapped: Any = network.to(accelerator.device)
        elif config.sharding == "fsdp2" and accelerator.num_processes > 1:
            self.wrapped = _sharded(network.to(accelerator.device))
        else:
            self.wrapped = accelerator.prepare_model(network)

    @property
    def limit(self) -> int | None:
        """Tokens of one packed piece; None: each path is a piece."""
        return self.config.max_pack_tokens if self.packs else None

    def read(self, batch: Batch) -> Tensor:
        """The network's output at the places of a batch."""
        device = self.accelerator.device
        half = self.config.precision == "bf16"
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            output: Tensor = self.wrapped(batch.tokens, batch.positions, batch.mask, batch.at)
        return output

    @torch.no_grad()
    def outputs(
        self, pieces: Sequence[Piece], of: Callable[[Tensor, Batch], Tensor]
    ) -> list[NDArray[np.float32]]:
        """`of` the network's output at each piece's places, in their order: [k] numbers a piece."""
        found: list[NDArray[np.float32]] = []
        for group in _groups(pieces, self.config.tokens_per_batch):
            batch = collate(group, self.packs).to(self.accelerator.device)
            numbers = of(self.read(batch), batch).float().cpu().numpy()
            found += np.split(numbers, np.cumsum([len(p.at) for p in group])[:-1])
        return found


def _groups(pieces: Sequence[Piece], tokens: int) -> list[list[Piece]]:
    """Neighbours of about `tokens` together."""
    groups: list[list[Piece]] = []
    size = tokens
    for piece in pieces:
        if size + len(piece) > tokens:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += len(piece)
    return groups


def _sharded(network: Network) -> Network:
    """Shard the layers over all processes (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                fully_shard(layer)
    fully_shard(network)
    return network
