"""Memory of an optimizer step: by arithmetic, from the models' configurations alone, and measured.

The arithmetic runs the trainer's own forward and backward pass on tensors that have shapes but no numbers (PyTorch's
fake tensors), and adds up what is alive at once. So it follows the architecture, adapters and checkpoints, takes
seconds, and needs no weights. Left out is what no tensor holds: workspaces of the matrix library, and the allocator's
gaps.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import tempfile
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.batches import Places
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.networks import Network, shaped
from ramify_trainer.learning.trainee import BLOCK, SMALL
from ramify_trainer.learning.value_head import write_head

__all__ = ["Alive", "MeasuredStep", "StepMemory", "apart", "measured_step", "step_memory"]

NUMBER = 4
"""Bytes of a float32."""
TEMPORARIES = {"adamw": 2, "adamw_8bit": 5}
"""Copies of the largest parameter that an optimizer makes, which goes through them one after another: √v, and that
divided; with 8 bits on a CPU also the gradient and both moments in float32 (on a GPU none of all these)."""
STEP = 64
"""Tokens of a step of the trees that are measured, each of which has `WIDTH` children."""
WIDTH = 4
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes that one optimizer step needs at its peak, the program itself left out."""

    parameters: int
    """Parameters of all networks; a number, not bytes."""
    trained: int
    """Those in training."""
    weights: int
    moments: int
    """The optimizer's."""
    gradients: int
    """Bytes of the network with most of them: networks take turns."""
    kept: int
    """Bytes that the forward pass leaves for the backward pass."""
    passes: int
    """Bytes that are alive at once at the peak of forward and backward pass, gradients so far included."""
    peak: int


def step_memory(policy: Path, value: Path | None, config: LearningConfig) -> StepMemory:
    """Return a step's memory for models of which only `config.json` is read. value: None if the value is a head on the
    policy's trunk. Weights that FSDP2 shards are counted whole."""
    with torch.device("meta"):
        networks = shaped(policy, value, config)
    with FakeTensorMode(
        allow_non_fake_inputs=True
    ):  # unlike "meta" it has a processor, whose attention is taken
        for network in networks.values():
            network.to_empty(device="cpu").model.tie_weights()
        parts = [_of(network, config) for network in networks.values()]
    weights = NUMBER * sum(part.parameters for part in parts)
    moments = sum(part.moments for part in parts)
    return StepMemory(
        parameters=sum(part.parameters for part in parts),
        trained=sum(part.trained for part in parts),
        weights=weights,
        moments=moments,
        gradients=max(NUMBER * part.trained for part in parts),
        kept=max(part.kept for part in parts),
        passes=max(part.passes for part in parts),
        peak=weights + moments + max(max(part.passes, part.update) for part in parts),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One network's share, in numbers (`parameters`, `trained`) and in bytes."""

    parameters: int
    trained: int
    moments: int
    kept: int
    passes: int
    update: int
    """Gradients and the optimizer's temporaries."""


def _of(network: Network, config: LearningConfig) -> _Part:
    trained = [p.numel() for p in network.parameters() if p.requires_grad]
    kept, passes = _passes(network, config)
    return _Part(
        parameters=sum(p.numel() for p in network.parameters()),
        trained=sum(trained),
        moments=sum(_moments(size, config) for size in trained),
        kept=kept,
        passes=passes,
        update=NUMBER * (sum(trained) + TEMPORARIES[config.optimizer] * max(trained, default=0)),
    )


def _moments(size: int, config: LearningConfig) -> int:
    """Return the bytes of both moments of a parameter of so many numbers."""
    if config.optimizer == "adamw" or size < SMALL:
        return 2 * NUMBER * size
    return 2 * (size + NUMBER * -(-size // BLOCK))


def _passes(network: Network, config: LearningConfig) -> tuple[int, int]:
    """Return the bytes that a forward pass leaves, and those alive above the weights at the peak of all passes. The
    gradients of the first pass are there in every other, so that two tell of any number."""
    tokens = config.tokens_per_batch // config.accumulation
    length = min(tokens, config.max_pack_tokens)
    rows = -(-tokens // length)
    kept = 0
    with Alive(network) as alive:
        for _ in range(min(2, config.accumulation)):
            before = alive.now
            outputs = _outputs(network, rows, length, config)
            kept = max(kept, alive.now - before)
            if network.trains:
                torch.stack([output.sum() for output in outputs.values()]).sum().backward()  # type: ignore[no-untyped-call]
            del outputs
    return kept, alive.peak


def _outputs(network: Network, rows: int, length: int, config: LearningConfig) -> dict[str, Tensor]:
    """Return what the network says after each of its tokens."""
    ids = torch.zeros(rows, length, dtype=torch.long)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
    at = torch.zeros(rows * length, dtype=torch.long)
    places = Places(at, at, {"temperature": torch.ones(len(at))})
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        outputs: dict[str, Tensor] = network(ids, ids, mask, dict.fromkeys(network.outputs, places))
    return outputs


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up, within its block, the bytes of all storages that operators make and nobody has let go of yet."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = weakref.WeakSet(p.untyped_storage() for p in network.parameters())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size).atexit = False

    def _forget(self, size: int) -> None:
        self.now -= size


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """Two optimizer steps, measured: resident memory, or on a GPU what torch has allocated there."""

    peak: int
    """Bytes at the peak, the program included."""
    before: int
    """Bytes of the program before the steps."""
    seconds_per_step: float
    """The mean of both, the packing of the trees included."""


def measured_step(policy: Path, value: Path | None, config: LearningConfig) -> MeasuredStep:
    """Measure two optimizer steps in a process of its own.

    value: None puts a head of zeros on the policy's trunk. The trees are random tokens. Raises `TrainerError` if they
    do not fit into memory."""
    return apart(_measured, policy, value, config)


def apart(work: Callable[..., Done], *arguments: Any) -> Done:
    """Return what `work` returns in a process of its own. Raises `TrainerError` if that runs out of memory: the system
    has killed it then, or torch says so."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(work, *arguments).result()
        except (BrokenProcessPool, MemoryError, torch.OutOfMemoryError) as error:
            raise TrainerError(
                "two optimizer steps do not fit into the memory here; gradient_checkpointing, lora, accumulation and "
                f"a smaller tokens_per_batch need less ({error})"
            ) from error


def _measured(policy: Path, value: Path | None, config: LearningConfig) -> MeasuredStep:
    changes = {"steps_per_round": 2, "epochs": 2.0, "tracker": "none"}
    config = config.model_copy(update=changes)
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        if value is None:
            value = Path(folder) / "value"
            size = _hidden_size(policy)
            write_head(value, {"weight": torch.zeros(1, size), "bias": torch.zeros(1)})
        learner = Learner.start(config, policy, value, policy, seed=0)
        each = min(config.max_pack_tokens, config.tokens_per_batch)
        trees = [_random_tree(i, each) for i in range(max(1, config.tokens_per_batch // each))]
        began = time.perf_counter()
        steps = learner.round(trees, seed=0).steps
        seconds = time.perf_counter() - began
    return MeasuredStep(_peak(), before, seconds / steps)


def _hidden_size(policy: Path) -> int:
    from transformers import AutoConfig

    size: int = AutoConfig.from_pretrained(policy, local_files_only=True).get_text_config().hidden_size
    return size


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _random_tree(seed: int, tokens: int) -> LabelledTree:
    """Return a tree of just so many tokens, in which every second answer is right."""
    draws = random.Random(seed)

    def drawn() -> tuple[int, ...]:
        return tuple(draws.randrange(10, 100) for _ in range(min(STEP, tokens // WIDTH)))

    tree = Tree(prompt_tokens=drawn(), params=search_params("mcts"), sampling=Sampling(), seed=seed)
    size, ends = len(tree.prompt_tokens), [tree.root]
    while size < tokens:
        parent = ends.pop(0)
        for _ in range(WIDTH):
            step = drawn()[: tokens - size]
            if not step:
                break
            ends.append(
                tree.add(parent, tokens=step, logprobs=(-5.0,) * len(step), length=parent.length + len(step))
            )
            size += len(step)
    leaves = [node for node in tree.leaves() if node.parent is not None]
    for leaf in leaves:
        leaf.terminal = "eos"
    return LabelledTree(tree, {leaf.id: float(i % 2) for i, leaf in enumerate(leaves)})
