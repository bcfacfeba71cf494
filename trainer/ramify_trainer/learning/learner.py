"""Train policy and value model on a round of labelled trees.

A round is a function of the weights, the optimizers, the trees in their order, and the seed: on a CPU with the same
number of threads it gives the same weights bit for bit, and so does a learner that was saved and resumed in between.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ramify_trainer.learning import checkpoint, metrics
from ramify_trainer.learning.batches import Batch, plan
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.export import export
from ramify_trainer.learning.labels import LabelledTree, policy_refusal
from ramify_trainer.learning.losses import Loss, imitation_loss, policy_loss, token_logprobs, value_loss
from ramify_trainer.learning.metrics import RoundMetrics
from ramify_trainer.learning.networks import (
    Reader,
    base_weights,
    load_policy,
    load_value,
    merged_weights,
)
from ramify_trainer.learning.packing import Piece
from ramify_trainer.learning.packing_probe import longest_path, policy_fault, value_fault
from ramify_trainer.learning.pieces import policy_pieces, value_pieces
from ramify_trainer.learning.trainee import LossOf, Trainee

__all__ = ["Learner", "torch_settings"]

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called after a step with (steps done, steps of this round)."""


class Learner:
    """Policy and value model in training. See `start` and `resume`."""

    def __init__(
        self,
        config: LearningConfig,
        policy: Path,
        value: Path,
        reference: Path,
        facts: checkpoint.LearnerState,
    ) -> None:
        self.config = config
        self._facts = facts
        self._sources = {"policy": policy, "value": value}
        self._reference_path = reference
        self._reference: Reader | None = None
        self._accelerator = Accelerator(
            log_with=None if config.tracker == "none" or not config.tracker_folder else config.tracker,
            project_dir=config.tracker_folder,
        )
        if self._accelerator.trackers == [] and config.tracker_folder and config.tracker != "none":
            self._accelerator.init_trackers("ramify")
        torch.manual_seed(facts.seed)
        self._policy = Trainee(
            load_policy(policy, config), config, config.policy_learning_rate, self._accelerator
        )
        self._value = Trainee(
            load_value(value, config), config, config.value_learning_rate, self._accelerator
        )

    @classmethod
    def start(
        cls,
        config: LearningConfig,
        policy: Path,
        value: Path,
        reference: Path,
        *,
        calibration: tuple[float, float] = (1.0, 0.0),
        seed: int,
    ) -> Learner:
        """Return a learner at step 0, from Hugging Face directories with safetensors.

        `reference` is the policy that `kl_beta` holds to; `calibration` the served value's a and b."""
        return cls(config, policy, value, reference, checkpoint.LearnerState(0, seed, calibration))

    @classmethod
    def resume(cls, config: LearningConfig, folder: Path, reference: Path) -> Learner:
        """Return the learner that `save` left in `folder`. Raises `FileNotFoundError`, or `ValueError` for another
        format."""
        folder = checkpoint.settled(folder)
        facts, state = checkpoint.read_facts(folder), checkpoint.read_state(folder)
        learner = cls(config, folder / "policy", folder / "value", reference, facts)
        for name, trainee in learner._trainees().items():
            own = {k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")}
            adapters = {k.removeprefix("weight/"): v for k, v in own.items() if k.startswith("weight/")}
            trainee.load(adapters)
            trainee.restore({k: v for k, v in own.items() if not k.startswith("weight/")})
        torch.set_rng_state(state["random/cpu"])
        return learner

    @property
    def steps(self) -> int:
        """Optimizer steps so far, of all rounds."""
        return self._facts.steps

    @property
    def calibration(self) -> tuple[float, float]:
        """The value's a and b: value = sigmoid(a·logit + b), in training and when served."""
        return self._facts.calibration

    @property
    def policy(self) -> Any:
        """The Hugging Face causal language model in training."""
        return self._policy.network.model

    @property
    def value(self) -> Any:
        """The Hugging Face sequence classifier in training."""
        return self._value.network.model

    def round(
        self, trees: Sequence[LabelledTree], *, seed: int, progress: Progress | None = None
    ) -> RoundMetrics:
        """Take up to `steps_per_round` optimizer steps on `trees`. Trees that may not serve an objective are left out
        and counted. With several processes each must be given the same trees and seed.

        Raises `FloatingPointError` if a gradient is not finite; the weights are then those before that step."""
        with torch_settings(self.config.threads):
            began = time.perf_counter()
            # Which trees the policy cannot learn from, and which networks can read trees packed.
            refused = Counter(
                reason for tree in trees if (reason := policy_refusal(tree, self.config)) is not None
            )
            self._settle_packing(longest_path(trees))
            # Trees become sequences with targets. The reference's log-probs and, for `path_ppo`, the value model's
            # estimates are taken here, before the first step changes anything.
            policy = self._policy_pieces(trees) if self.config.train_policy else []
            value = value_pieces(trees, self.config, self._value) if self.config.train_value else []
            jobs = {
                "policy": (self._policy, policy, self._policy_loss),
                "value": (self._value, value, self._value_loss),
            }
            sums, norms, steps = self._steps(jobs, seed, progress)
            result = RoundMetrics(
                trees=len(trees),
                steps=steps,
                seconds=time.perf_counter() - began,
                staleness=float(np.mean([t.staleness for t in trees])) if trees else 0.0,
                masked_share=float(np.mean([not t.outcomes for t in trees])) if trees else 0.0,
                packed=float(self._policy.packs and self._value.packs),
                refused=dict(sorted(refused.items())),
                policy=self._figures(sums["policy"], norms["policy"], metrics.policy_figures),
                value=self._figures(sums["value"], norms["value"], metrics.value_figures),
            )
        if self._accelerator.trackers:
            self._accelerator.log(result.figures(), step=self.steps)
        return result

    def save(self, folder: Path) -> None:
        """Write everything that `resume` needs as `folder`, in place of what is there, all or nothing."""
        state: dict[str, Tensor] = {"random/cpu": torch.get_rng_state()}
        models = {}
        for name, trainee in self._trainees().items():
            weights = trainee.weights()
            own = base_weights(trainee.network, weights)
            models[name] = (trainee.network.model, own, self._sources[name])
            state |= {f"{name}/{key}": value for key, value in trainee.state().items()}
            state |= {f"{name}/weight/{key}": w for key, w in weights.items() if ".lora_" in key}
        if self._accelerator.is_main_process:
            checkpoint.write(folder, self._facts, models, state)
        self._accelerator.wait_for_everyone()

    def export(self, folder: Path, like: Path) -> None:
        """Write both models, adapters merged, as `policy` and `value` in `folder`. They hold the tensors that the
        directories of these names in `like` hold, numbers of their types, and every other file as it is there.

        Raises `FileExistsError`, and `ValueError` if a weight is not finite or has no place."""
        for name, trainee in self._trainees().items():
            weights = merged_weights(trainee.network, trainee.weights())
            if self._accelerator.is_main_process:
                export(trainee.network.model, weights, like / name, folder / name)
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """End the tracker. Several processes stay together for the next round, as `end_training` would not have it."""
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _trainees(self) -> dict[str, Trainee]:
        return {"policy": self._policy, "value": self._value}

    def _steps(
        self,
        jobs: Mapping[str, tuple[Trainee, list[Piece], LossOf]],
        seed: int,
        progress: Progress | None,
    ) -> tuple[dict[str, list[dict[str, Tensor]]], dict[str, list[float]], int]:
        """Step i trains each network on its own i-th batch."""
        plans = {name: self._plan(pieces, seed) for name, (_, pieces, _) in jobs.items()}
        total = max((len(p) for p in plans.values()), default=0)
        sums: dict[str, list[dict[str, Tensor]]] = {name: [] for name in jobs}
        norms: dict[str, list[float]] = {name: [] for name in jobs}
        for i in range(total):
            for name, (trainee, pieces, loss_of) in jobs.items():
                if i < len(plans[name]):
                    chosen = [pieces[k] for k in plans[name][i]]
                    step_sums, norm = trainee.step(chosen, loss_of, self.steps)
                    sums[name].append(step_sums)
                    norms[name].append(norm)
            self._facts = replace(self._facts, steps=self.steps + 1)
            if progress:
                progress(i + 1, total)
        return sums, norms, total

    def _plan(self, pieces: Sequence[Piece], seed: int) -> list[list[int]]:
        c = self.config
        return plan([len(p) for p in pieces], c.tokens_per_batch, c.steps_per_round, c.epochs, seed)

    def _settle_packing(self, path: Sequence[int]) -> None:
        """Decide, on the round's longest path, which of the networks read packed trees and which read their paths."""
        if len(path) < 2:
            return
        faults = {"policy": policy_fault, "value": value_fault}
        for name, trainee in self._trainees().items():
            fault = faults[name](trainee, path)
            trainee.packs = fault is None
            if fault is not None:
                logger.warning(
                    "the %s (%s) is trained path by path, which is correct and slower than packed trees: packed, %s",
                    name,
                    type(trainee.network.model).__name__,
                    fault,
                )

    def _policy_pieces(self, trees: Sequence[LabelledTree]) -> list[Piece]:
        if self._reference is None and self.config.kl_beta:
            network = load_policy(self._reference_path, self.config, trained=False)
            self._reference = Reader(network, self.config, self._accelerator)
        if self._reference is not None:
            self._reference.packs = self._policy.packs
        return policy_pieces(trees, self.config, self._policy, self._value, self.calibration, self._reference)

    def _policy_loss(self, logits: Tensor, batch: Batch) -> Loss:
        logprobs, entropy = token_logprobs(
            logits, batch.labels, batch.columns["temperature"], self.config.entropy > 0
        )
        loss_of = policy_loss if self.config.needs_ratio else imitation_loss
        return loss_of(logprobs, entropy, batch.columns.get("reference"), batch.columns, self.config)

    def _value_loss(self, logits: Tensor, batch: Batch) -> Loss:
        a, b = self.calibration
        return value_loss(a * logits + b, batch.columns, self.config.value_loss)

    def _figures(
        self,
        sums: Sequence[dict[str, Tensor]],
        norms: list[float],
        figures: Callable[[Mapping[str, Tensor], list[float]], dict[str, float]],
    ) -> dict[str, float]:
        """Return a network's figures over the steps of a round and over all processes."""
        if not sums:
            return {}
        whole = metrics.merged(sums)
        return figures({name: self._accelerator.reduce(x, "sum") for name, x in whole.items()}, norms)


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Use so many cores, and no denormal numbers (slow, and too small to matter), until the block ends."""
    np.finfo(np.float32), np.finfo(np.float64)  # worked out now: without denormals NumPy warns
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
