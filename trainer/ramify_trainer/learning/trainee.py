"""One network in training, be it policy, value model or both in one: its optimizer, and steps that do not depend on
how they are computed.

Every process holds the same plan and takes its share of each step. Losses are sums; each is divided by the weighted
count of the whole step over all processes, so accumulation and the number of processes change a gradient by rounding
alone.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.batches import Places, collate, idle, share, total_weight
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.losses import Loss
from ramify_trainer.learning.networks import Network, Reader, placed_like
from ramify_trainer.learning.packing import Piece

__all__ = ["BLOCK", "SMALL", "Trainee", "add_sums", "optimizer_of", "rate_factor", "require_optimizer"]

BLOCK = 256
"""Numbers of a moment in 8 bits that share a scale in float32."""
SMALL = 4096
"""Parameters with fewer numbers have moments in float32 all the same."""

LossOf = Callable[[Mapping[str, Tensor], Places], Loss]
"""The network's outputs, and the places of a batch at which one of them is read, to the loss there."""
Sums = dict[str, Tensor]
"""Sums of one loss, by name."""


class Trainee(Reader):
    """A network and its optimizer, which has a group of parameters and a learning rate for each output."""

    def __init__(self, network: Network, config: LearningConfig, accelerator: Accelerator) -> None:
        super().__init__(network, config, accelerator)
        rates = {"policy": config.policy_learning_rate, "value": config.value_learning_rate}
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.parameters():
            groups.setdefault(network.trained_as(name), []).append(parameter)
        self.optimizer = optimizer_of(
            [
                {"params": own, "lr": rates[output], "rate": rates[output], "output": output}
                for output, own in groups.items()
            ],
            config,
        )

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters in training, by name, in the optimizer's order."""
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    def weights(self) -> dict[str, Tensor]:
        """Return every weight, whole and on the CPU, by its name in the network. All processes must ask at once. All
        but the first get empty tensors: a machine may have no room for a copy in each."""
        return {name: self._gathered(tensor) for name, tensor in self.network.state_dict().items()}

    def learned(self) -> dict[str, Tensor]:
        """Return the same of adapters and of all that is in training."""
        return {
            name: self._gathered(p)
            for name, p in self.network.named_parameters()
            if p.requires_grad or ".lora_" in name
        }

    def step(
        self, pieces: Sequence[Piece], losses: Mapping[str, LossOf], steps: int
    ) -> tuple[dict[str, Sums], dict[str, float]]:
        """Take one optimizer step on `pieces`, on the sum of the losses of their outputs; `steps` were taken before.
        Return by output the sums of the loss over this process's share, and the norm of the whole gradient of its group
        of parameters before clipping."""
        # Every process holds all pieces and takes its share of them; none may skip a backward pass that others wait in.
        shares = share(pieces, self._passes(pieces) * self.accelerator.num_processes)
        mine = shares[self.accelerator.process_index :: self.accelerator.num_processes]
        if self.accelerator.num_processes == 1:
            mine = [part for part in mine if part]
        sums: dict[str, Sums] = {output: {} for output in losses}
        try:
            for i, part in enumerate(mine):
                batch = collate(part or [idle(pieces[0])], self.packs)
                with self._communicating(i + 1 == len(mine)):
                    outputs, batch = self.read(batch), batch.to(self.accelerator.device)
                    found = {output: of(outputs, batch.readings[output]) for output, of in losses.items()}
                    self._whole_loss(found, pieces).backward()  # type: ignore[no-untyped-call]
                for output, loss in found.items():
                    add_sums(sums[output], loss.sums)
            return sums, self._update(steps)
        finally:
            self.optimizer.zero_grad()  # frees the gradients: the other network's step comes next

    def _passes(self, pieces: Sequence[Piece]) -> int:
        """Return the forward passes of a step: as configured, or more, so that none holds more tokens than then."""
        full = round(sum(map(len, pieces)) / self.config.tokens_per_batch)
        return self.config.accumulation * max(1, full)

    def _whole_loss(self, losses: Mapping[str, Loss], pieces: Sequence[Piece]) -> Tensor:
        """Return the sum of the losses' terms, each divided by its weighted count in the whole step. A step of trees
        that serve one term alone has no weight for the others."""
        processes = self.accelerator.num_processes  # gradients are averaged over them
        scaled = []
        for output, loss in losses.items():
            for column, total in loss.totals.items():
                weight = total_weight(pieces, output, column)
                scaled.append(total * (processes / weight if weight else 0.0))
        return torch.stack(scaled).sum() if len(scaled) > 1 else scaled[0]

    def _communicating(self, last: bool) -> Any:
        """Gradients travel between processes with the last share alone."""
        if self.accelerator.num_processes == 1 or last or self.config.sharding != "none":
            return nullcontext()
        return self.accelerator.no_sync(self.wrapped)

    def _update(self, steps: int) -> dict[str, float]:
        factor = rate_factor(steps, self.config)
        norms = {}
        for group in self.optimizer.param_groups:
            norm = whole(torch.nn.utils.clip_grad_norm_(group["params"], self.config.max_grad_norm)).item()
            if not norm < float("inf"):
                raise FloatingPointError(f"the gradient's norm is {norm} in optimizer step {steps + 1}")
            norms[group["output"]] = norm
            group["lr"] = group["rate"] * factor
        self.optimizer.step()
        return norms

    def state(self) -> dict[str, Tensor]:
        """Return what the optimizer remembers, by `<moment>/<parameter>`, as `weights` does."""
        return {
            f"{moment}/{name}": self._gathered(
                torch.as_tensor(value)
            )  # bitsandbytes counts steps in a plain number
            for name, parameter in self.parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }

    def _gathered(self, tensor: Tensor) -> Tensor:
        if self.accelerator.is_main_process:
            return whole(tensor)
        if hasattr(tensor, "full_tensor"):
            tensor.full_tensor()  # the first process gathers with all others
        return torch.empty(0)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` gave, but for parameters that are frozen now. Raises `ValueError` if it is another
        network's."""
        own = dict(self.network.named_parameters())
        for key, value in state.items():
            moment, _, name = key.partition("/")
            if name not in own:
                raise ValueError(f"the optimizer's state names {name!r}, which the network does not have")
            parameter = own[name]
            if not parameter.requires_grad:
                continue
            at = self.optimizer.state[parameter]
            if moment != "step":
                at[moment] = placed_like(value, parameter)
            else:
                at[moment] = value.clone() if value.is_floating_point() else int(value)


def add_sums(sums: Sums, more: Sums) -> None:
    """Add the sums of one batch to those so far."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of the tensor on the CPU, gathered from all processes if it is sharded."""
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().to("cpu", copy=True)


def rate_factor(step: int, config: LearningConfig) -> float:
    """Return what the learning rates are multiplied by in an optimizer step; `step` were taken before it.

    A function of the step alone: a run that goes on after a restart has the rates of one that was never stopped.
    They rise in a line to 1 over `warmup_steps`; from there to `schedule_steps` they stay, or fall to `schedule_floor`
    in a line or along half a cosine (Loshchilov & Hutter 2017, without restarts), and then stay."""
    warmup, floor = config.warmup_steps, config.schedule_floor
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule_steps is None:
        return 1.0
    done = min(1.0, (step - warmup) / (config.schedule_steps - warmup))
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return floor + (1 - floor) * left


def require_optimizer(config: LearningConfig) -> None:
    """Raise `TrainerError` if the optimizer's library is not installed."""
    if config.optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise TrainerError(
            'learning.optimizer is "adamw_8bit", which needs bitsandbytes: '
            "pip install '.[8bit]' in a checkout, or set \"adamw\""
        )


def optimizer_of(groups: Iterable[dict[str, Any]], config: LearningConfig) -> torch.optim.Optimizer:
    """Return the configured optimizer for groups of parameters: PyTorch's AdamW, or that of bitsandbytes with moments
    of 8 bits (Dettmers et al. 2022, arXiv 2110.02861). Raises `TrainerError` if its library is missing."""
    require_optimizer(config)
    common: dict[str, Any] = {
        "betas": (0.9, config.adam_beta2),
        "eps": 1e-8,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "adamw":
        # all parameters at once, as is usual on a GPU, need one more copy of them
        return torch.optim.AdamW(groups, **common, foreach=False)
    from bitsandbytes.optim import AdamW8bit

    eight: torch.optim.Optimizer = AdamW8bit(groups, **common, min_8bit_size=SMALL)
    return eight
