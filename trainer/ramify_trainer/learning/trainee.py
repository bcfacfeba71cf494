"""One network in training: its optimizer, and steps that do not depend on how they are computed.

Every process holds the same plan and takes its share of each step. Losses are sums; each is divided by the weighted
count of the whole step over all processes, so accumulation and the number of processes change a gradient by rounding
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ramify_trainer.learning.batches import Batch, collate, idle, share, total_weight
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.losses import Loss
from ramify_trainer.learning.networks import Network, Reader
from ramify_trainer.learning.packing import Piece

__all__ = ["Trainee", "add_sums"]

LossOf = Callable[[Tensor, Batch], Loss]
"""The network's output at a batch's places, and the batch, to its loss."""


class Trainee(Reader):
    """A network, its optimizer and its learning rate."""

    def __init__(
        self, network: Network, config: LearningConfig, rate: float, accelerator: Accelerator
    ) -> None:
        super().__init__(network, config, accelerator)
        self.rate = rate
        self.optimizer = torch.optim.AdamW(
            [p for p in self.wrapped.parameters() if p.requires_grad],
            lr=rate,
            betas=(0.9, config.adam_beta2),
            eps=1e-8,
            weight_decay=config.weight_decay,
        )

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters in training, by name, in the optimizer's order."""
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    def weights(self) -> dict[str, Tensor]:
        """Return every weight, whole and on the CPU, by its name in the network. All processes must ask at once."""
        return {name: whole(tensor) for name, tensor in self.network.state_dict().items()}

    def step(self, pieces: Sequence[Piece], loss_of: LossOf, steps: int) -> tuple[dict[str, Tensor], float]:
        """Take one optimizer step on `pieces`; `steps` were taken before. Return the sums of the loss over this
        process's share, and the norm of the whole gradient before clipping."""
        # Every process holds all pieces and takes its share of them; none may skip a backward pass that others wait in.
        shares = share(pieces, self.config.accumulation * self.accelerator.num_processes)
        mine = shares[self.accelerator.process_index :: self.accelerator.num_processes]
        if self.accelerator.num_processes == 1:
            mine = [part for part in mine if part]
        scale = self.accelerator.num_processes / total_weight(pieces)  # gradients are averaged over processes
        sums: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for i, part in enumerate(mine):
            batch = collate(part or [idle(pieces[0])], self.packs)
            with self._communicating(i + 1 == len(mine)):
                loss = loss_of(self.read(batch), batch.to(self.accelerator.device))
                (loss.total * scale).backward()
            add_sums(sums, loss.sums)
        return sums, self._update(steps)

    def _communicating(self, last: bool) -> Any:
        """Gradients travel between processes with the last share alone."""
        if self.accelerator.num_processes == 1 or last or self.config.sharding != "none":
            return nullcontext()
        return self.accelerator.no_sync(self.wrapped)

    def _update(self, steps: int) -> float:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)).item()
        if not norm < float("inf"):
            raise FloatingPointError(f"the gradient's norm is {norm} in optimizer step {steps + 1}")
        warmup = self.config.warmup_steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * (min(1.0, (steps + 1) / warmup) if warmup else 1.0)
        self.optimizer.step()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return what the optimizer remembers, by `<moment>/<parameter>`. All processes must ask at once."""
        return {
            f"{moment}/{name}": whole(value)
            for name, parameter in self.parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }

    def load(self, weights: dict[str, Tensor]) -> None:
        """Put in some of the weights, by their names in the network. Raises `ValueError` for an unknown one."""
        own = self.network.state_dict()
        for name, weight in weights.items():
            if name not in own:
                raise ValueError(f"the checkpoint holds {name!r}, which this configuration does not train")
            own[name].copy_(placed_like(weight, own[name]))

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave. Raises `ValueError` if it is another network's."""
        own = dict(self.parameters())
        for key, value in state.items():
            moment, _, name = key.partition("/")
            if name not in own:
                raise ValueError(f"the optimizer's state names {name!r}, which is not in training")
            parameter = own[name]
            at = self.optimizer.state[parameter]
            at[moment] = value.clone() if moment == "step" else placed_like(value, parameter)


def add_sums(sums: dict[str, Tensor], more: dict[str, Tensor]) -> None:
    """Add the sums of one batch to those so far."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of the tensor on the CPU, gathered from all processes if it is sharded."""
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().to("cpu", copy=True)


def placed_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a copy of `value` on the parameter's device, sharded as the parameter is."""
    if not hasattr(parameter, "device_mesh"):
        return value.to(parameter.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    placed: Tensor = distribute_tensor(
        value.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,  # type: ignore[attr-defined]
    )
    return placed
