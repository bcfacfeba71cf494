"""Train policy and value on a round of labelled trees: two models, or one with a value head on its trunk.

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

from ramify.files import share
from ramify.weights import ADAPTER, HEAD, ModelFiles, Release, models_of, value_kind
from ramify_trainer.learning import checkpoint, metrics
from ramify_trainer.learning.adapters import write_adapter
from ramify_trainer.learning.batches import Places, plan
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.export import export
from ramify_trainer.learning.labels import LabelledTree, policy_refusal
from ramify_trainer.learning.losses import Loss, policy_loss, value_loss
from ramify_trainer.learning.metrics import RoundMetrics, draw_figures
from ramify_trainer.learning.networks import (
    Network,
    Reader,
    base_weights,
    head_weights,
    load_policy,
    load_trunk,
    load_value,
    merged_weights,
    without_adapters,
)
from ramify_trainer.learning.packing import Piece
from ramify_trainer.learning.packing_probe import longest_path, policy_fault, value_fault
from ramify_trainer.learning.pieces import (
    PolicyLessons,
    packed_trees,
    policy_lessons,
    value_lessons,
    with_reference,
)
from ramify_trainer.learning.prompts import by_prompt
from ramify_trainer.learning.trainee import LossOf, Sums, Trainee
from ramify_trainer.learning.value_head import write_head
from ramify_trainer.progress import Progress

__all__ = ["Learner", "torch_settings"]

logger = logging.getLogger(__name__)


class Learner:
    """Policy and value in training. See `start` and `resume`."""

    def __init__(
        self,
        config: LearningConfig,
        policy: Path,
        value: Path,
        reference: Path,
        facts: checkpoint.LearnerState,
        adapter: Path | None = None,
    ) -> None:
        self.config = config
        self._adapter = adapter
        self._sources = {"policy": policy, "value": value}
        self._trunk = value_kind(value) == "trunk"
        self._reference = reference
        self._idle: dict[str, Tensor] = {}
        self._accelerator = Accelerator(
            log_with=None if config.tracker == "none" or not config.tracker_folder else config.tracker,
            project_dir=config.tracker_folder,
        )
        if self._accelerator.trackers == [] and config.tracker_folder and config.tracker != "none":
            self._accelerator.init_trackers("ramify")
        torch.manual_seed(facts.seed)
        self._readers: dict[str, Reader] = {
            name: (Trainee if network.trains else Reader)(network, config, self._accelerator)
            for name, network in self._networks().items()
        }
        self._trainees = {name: r for name, r in self._readers.items() if isinstance(r, Trainee)}
        changes = "policy" in self._trainees and self._trainees["policy"].network.changes
        self._facts = replace(facts, from_reference=facts.from_reference and not changes)

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
        base: str = "",
        adapter: Path | None = None,
    ) -> Learner:
        """Return a learner at step 0, from the directories `policy` and `value` of a release: Hugging Face ones with
        safetensors, but for a `value` that holds a head on the policy's trunk.

        `reference` is the policy that `kl_beta` holds to; `calibration` the served value's a and b; `base` the id of
        the release that has the directory `policy`; `adapter` the one on it that is served, if it is.

        Raises `ValueError` if the configuration would train others than its own."""
        trains = config.train_policy or value_kind(value) == "trunk"
        if adapter is not None and trains and not config.publishes_adapter:
            raise ValueError(f'{adapter} is served: training goes on with learning.lora.publish "adapter"')
        facts = checkpoint.LearnerState(
            0,
            seed,
            calibration,
            from_reference=policy.samefile(reference),
            base=base,
            optimizer=config.optimizer,
        )
        return cls(config, policy, value, reference, facts, adapter)

    @classmethod
    def resume(cls, config: LearningConfig, folder: Path, reference: Path) -> Learner:
        """Return the learner that `save` left in `folder`. Raises `FileNotFoundError`, or `ValueError` for another
        format or optimizer."""
        folder = checkpoint.settled(folder)
        facts, state = checkpoint.facts_for(folder, config), checkpoint.read_state(folder)
        learner = cls(config, folder / "policy", folder / "value", reference, facts)
        for name, reader in learner._readers.items():
            own = {k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")}
            reader.load({k.removeprefix("weight/"): v for k, v in own.items() if k.startswith("weight/")})
            if isinstance(reader, Trainee):
                reader.restore({k: v for k, v in own.items() if not k.startswith("weight/")})
        torch.set_rng_state(state.pop("random/cpu"))
        learner._idle = {k: v for k, v in state.items() if k.partition("/")[0] not in learner._trainees}
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
        return self._trainees["policy"].network.model

    def round(
        self, trees: Sequence[LabelledTree], *, seed: int, progress: Progress | None = None
    ) -> RoundMetrics:
        """Take up to `steps_per_round` optimizer steps on `trees`. Trees that may not serve an objective are left out
        and counted. With several processes each must be given the same trees and seed.

        Raises `FloatingPointError` if a gradient is not finite; the weights are then those before that step."""
        with torch_settings(self.config.threads):
            began = time.perf_counter()
            # Which trees the policy cannot learn from, and which networks can read trees packed.
            drawn = [tree for tree in trees if not tree.replayed]
            refused = Counter(
                reason for tree in drawn if (reason := policy_refusal(tree, self.config)) is not None
            )
            parts = by_prompt(trees)
            self._settle_packing(longest_path(parts))
            # Trees become sequences with targets. The reference's log-probs and, for `path_ppo`, the values of states
            # are taken here, before the first step changes anything.
            policy = self._policy_lessons(parts, seed) if self.config.train_policy else None
            pieces = self._pieces(parts, policy)
            plans = {name: self._plan(own, seed) for name, own in pieces.items()}
            sums, norms, steps = self._steps(pieces, plans, progress)
            result = RoundMetrics(
                trees=len(drawn),
                steps=steps,
                read_tokens=sum(
                    len(pieces[name][k]) for name in plans for batch in plans[name] for k in batch
                ),
                seconds=time.perf_counter() - began,
                staleness=float(np.mean([t.staleness for t in drawn])) if drawn else 0.0,
                masked_share=float(np.mean([not t.outcomes for t in drawn])) if drawn else 0.0,
                packed=float(all(reader.packs for reader in self._readers.values())),
                refused=dict(sorted(refused.items())),
                draws=draw_figures([part for part in parts if not part.replayed], self.config.correct),
                lessons={} if policy is None else policy.figures,
                policy=self._figures(sums["policy"], norms["policy"], metrics.policy_figures),
                value=self._figures(sums["value"], norms["value"], metrics.value_figures),
            )
        if self._accelerator.trackers:
            self._accelerator.log(result.figures(), step=self.steps)
        return result

    def save(self, folder: Path) -> None:
        """Write everything that `resume` needs as `folder`, in place of what is there, all or nothing."""
        state: dict[str, Tensor] = {**self._idle, "random/cpu": torch.get_rng_state()}
        models: dict[str, tuple[Any, dict[str, Tensor], Path]] = {}
        head: dict[str, Tensor] = {}
        for name, trainee in self._trainees.items():
            network, weights = trainee.network, trainee.learned()
            state |= {f"{name}/{key}": value for key, value in trainee.state().items()}
            head |= head_weights(weights)
            if network.changes:
                models[name] = network.model, base_weights(trainee.weights()), self._sources[name]
            else:
                own = {key: weight for key, weight in weights.items() if not key.startswith("head.")}
                state |= {f"{name}/weight/{key}": weight for key, weight in own.items()}
        unchanged = {name: source for name, source in self._sources.items() if name not in models}
        if head:
            unchanged.pop("value", None)
        if self._accelerator.is_main_process:
            checkpoint.write(folder, self._facts, models, unchanged, head, state)
        self._accelerator.wait_for_everyone()

    def export(self, folder: Path, like: Path | Release) -> None:
        """Write policy and value, adapters merged, as `policy` and `value` in `folder`. They hold the tensors that
        those of `like` hold, numbers of their types, and every other file as it is there; a value head is written in
        float32. What is not trained is taken from `like`, whose models must be those that this learner began with.
        With `lora.publish = "adapter"` the policy's adapters are written as `policy_adapter`, in place of `policy`.

        Raises `FileExistsError`, and `ValueError` if a weight is not finite or has no place."""
        models = models_of(like)
        sources = {"policy": models.policy, "value": models.value}
        for name, trainee in self._trainees.items():
            learned = trainee.learned()
            if name == "policy" and self.config.publishes_adapter and trainee.network.adapted:
                self._write_adapter(folder / ADAPTER, learned)
            elif trainee.network.changes or trainee.network.adapted:
                weights = trainee.weights()
                if self._accelerator.is_main_process:
                    merged = merged_weights(trainee.network, weights)
                    export(trainee.network.model, merged, sources[name], folder / name)
            if (head := head_weights(learned)) and self._accelerator.is_main_process:
                write_head(folder / "value", head)
        if self._accelerator.is_main_process:
            self._share_untrained(folder, models)
        self._accelerator.wait_for_everyone()

    def _write_adapter(self, folder: Path, learned: Mapping[str, Tensor]) -> None:
        if not self._facts.base:
            raise ValueError(
                'lora.publish is "adapter", and this learner does not say which release its adapters were begun on: '
                "remove it, and training begins anew from the release served"
            )
        if self._accelerator.is_main_process and self.config.lora is not None:
            write_adapter(folder, learned, self.config.lora, self._facts.base)

    def _share_untrained(self, folder: Path, models: ModelFiles) -> None:
        """Put what was not trained into a candidate's folder."""
        if not (folder / "value").exists():
            share(models.value, folder / "value")
        if (folder / "policy").exists() or (folder / ADAPTER).exists():
            return
        if models.adapter is not None:
            share(models.adapter, folder / ADAPTER)
        else:
            share(models.policy, folder / "policy")

    def close(self) -> None:
        """End the tracker. A process group stays, which `end_training` would end too."""
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _policy_lessons(self, trees: Sequence[LabelledTree], seed: int) -> PolicyLessons:
        judge = self._readers.get("value", self._readers["policy"]) if self.config.judges else None
        return policy_lessons(trees, self.config, judge, self.calibration, seed)

    def _pieces(self, trees: Sequence[LabelledTree], lessons: PolicyLessons | None) -> dict[str, list[Piece]]:
        """Return what each trainee learns from, by its name."""
        c = self.config
        policy = None if lessons is None else lessons.targets
        value = value_lessons(trees, c, apart="value" in self._trainees) if c.train_value else None
        pieces = {}
        for name, trainee in self._trainees.items():
            outputs = trainee.network.outputs
            pieces[name] = packed_trees(
                trees, trainee, policy if "policy" in outputs else None, value if "value" in outputs else None
            )
        if policy is not None and c.kl_beta and pieces["policy"]:
            pieces["policy"] = self._with_reference(pieces["policy"])
        return pieces

    def _with_reference(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return the pieces with the reference's log-probs. Nothing of the reference stays in memory: it is the policy
        without its adapters, or a model that is loaded for this alone."""
        policy = self._trainees["policy"]
        if self._facts.from_reference and policy.network.adapted:
            with without_adapters(policy.network):
                return with_reference(pieces, policy)
        network = load_policy(self._reference, self.config, trained=False)
        reference = Reader(network, self.config, self._accelerator)
        reference.packs = policy.packs
        return with_reference(pieces, reference)

    def _steps(
        self,
        pieces: Mapping[str, list[Piece]],
        plans: Mapping[str, list[list[int]]],
        progress: Progress | None,
    ) -> tuple[dict[str, list[Sums]], dict[str, list[float]], int]:
        """Step i trains each network on its own i-th batch. Return the sums of each loss and the norms of its
        gradients, step by step, and the number of steps.

        plans: by network, the pieces of every step, as indices."""
        losses: dict[str, LossOf] = {"policy": self._policy_loss, "value": self._value_loss}
        total = max((len(p) for p in plans.values()), default=0)
        sums: dict[str, list[Sums]] = {output: [] for output in losses}
        norms: dict[str, list[float]] = {output: [] for output in losses}
        for i in range(total):
            for name, trainee in self._trainees.items():
                if i < len(plans[name]):
                    chosen = [pieces[name][k] for k in plans[name][i]]
                    asked = {output: losses[output] for output in chosen[0].readings}
                    found, lengths = trainee.step(chosen, asked, self.steps)
                    for output, one in found.items():
                        sums[output].append(one)
                        norms[output].append(lengths[output])
            self._facts = replace(self._facts, steps=self.steps + 1)
            if progress:
                progress(i + 1, total)
        return sums, norms, total

    def _plan(self, pieces: Sequence[Piece], seed: int) -> list[list[int]]:
        c = self.config
        sizes = [len(p) if c.fill == "tokens" else p.signal for p in pieces]
        return plan(sizes, c.tokens_per_batch, c.steps_per_round, c.epochs, seed)

    def _settle_packing(self, path: Sequence[int]) -> None:
        """Decide, on the round's longest path, which of the networks read packed trees and which read their paths."""
        if len(path) < 2:
            return
        faults = {"policy": policy_fault, "value": value_fault}  # a head sees what its trunk's policy sees
        for name, reader in self._readers.items():
            fault = faults[name](reader, path)
            reader.packs = fault is None
            if fault is not None:
                logger.warning(
                    "the %s (%s) reads path by path, which is correct and slower than packed trees: packed, %s",
                    name,
                    type(reader.network.model).__name__,
                    fault,
                )

    def _policy_loss(self, outputs: Mapping[str, Tensor], places: Places) -> Loss:
        columns = places.columns
        reference = columns.get("reference")
        return policy_loss(outputs["policy"], outputs["entropy"], reference, columns, self.config)

    def _value_loss(self, outputs: Mapping[str, Tensor], places: Places) -> Loss:
        a, b = self.calibration
        loss = value_loss(a * outputs["value"] + b, places.columns, self.config.value_loss)
        if not self._trunk:
            return loss
        scaled = {name: self.config.value_coefficient * total for name, total in loss.totals.items()}
        return replace(loss, totals=scaled)

    def _networks(self) -> dict[str, Network]:
        """Return the networks that have something to do: one with a value head on its trunk, or up to two models. A
        value model that is not trained may have to judge."""
        c, policy, value = self.config, self._sources["policy"], self._sources["value"]
        if self._trunk:
            return {"policy": load_trunk(policy, value / HEAD, c, adapter=self._adapter)}
        networks: dict[str, Network] = {}
        if c.train_policy:
            networks["policy"] = load_policy(policy, c, adapter=self._adapter)
        if c.train_value or c.judges:
            networks["value"] = load_value(value, c, trained=c.train_value)
        return networks

    def _figures(
        self,
        sums: Sequence[Sums],
        norms: list[float],
        figures: Callable[[Mapping[str, Tensor], list[float]], dict[str, float]],
    ) -> dict[str, float]:
        """Return a loss's figures over the steps of a round and over all processes; none if nothing had a weight."""
        if not sums:
            return {}
        whole = {name: self._accelerator.reduce(x, "sum") for name, x in metrics.merged(sums).items()}
        return figures(whole, norms)


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
