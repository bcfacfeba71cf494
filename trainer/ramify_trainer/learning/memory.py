"""Memory of an optimizer step: by arithmetic, from the models' configurations alone, and measured.

The arithmetic runs the trainer's own forward pass on tensors that have shapes but no numbers (PyTorch's fake tensors),
and counts what autograd keeps of it. So it follows the architecture, adapters and checkpoints, takes seconds, and needs
no weights.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.modeling_layers import GradientCheckpointingLayer

from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.batches import Places
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.lm_head import LOGITS
from ramify_trainer.learning.networks import Network, shaped
from ramify_trainer.learning.value_head import write_head

__all__ = ["StepMemory", "apart", "measured_step", "step_memory"]

NUMBER = 4
"""Bytes of a float32."""
COPIES = 6
"""Copies of a chunk of logits that its log-softmax, entropy and gradients hold at once."""
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
    """Bytes that the forward pass keeps for the backward pass."""
    transient: int
    """Bytes needed for a moment: logits of one chunk, one layer that is computed again, the optimizer's own."""
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
    moments = 2 * NUMBER * sum(part.trained for part in parts)
    return StepMemory(
        parameters=sum(part.parameters for part in parts),
        trained=sum(part.trained for part in parts),
        weights=weights,
        moments=moments,
        gradients=max(NUMBER * part.trained for part in parts),
        kept=max(part.kept for part in parts),
        transient=max(part.transient for part in parts),
        peak=weights + moments + max(part.above(config) for part in parts),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One network's share, in numbers (`parameters`, `trained`) and in bytes."""

    parameters: int
    trained: int
    largest: int
    """Bytes of the largest gradient."""
    kept: int
    transient: int

    def above(self, config: LearningConfig) -> int:
        """Return the peak above weights and moments. What was kept goes as gradients come; those of `lm_head`, the
        largest, come first. With accumulation all gradients are there in every pass but the first."""
        gradients = NUMBER * self.trained
        backward = self.kept + (gradients if config.accumulation > 1 else self.largest)
        return max(backward + self.transient, gradients + 2 * self.largest)


def _of(network: Network, config: LearningConfig) -> _Part:
    trained = [p.numel() for p in network.parameters() if p.requires_grad]
    kept = _kept(network, config)
    again = 0
    if config.gradient_checkpointing:
        layers = [m for m in network.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:
            layer.training = False
        again = (_kept(network, config) - kept) // len(layers)
    places = config.tokens_per_batch // config.accumulation
    vocabulary = network.model.config.get_text_config().vocab_size
    chunk = COPIES * NUMBER * min(LOGITS, places * vocabulary) if "policy" in network.outputs else 0
    parameters = sum(p.numel() for p in network.parameters())
    return _Part(parameters, sum(trained), NUMBER * max(trained, default=0), kept, max(chunk, again))


def _kept(network: Network, config: LearningConfig) -> int:
    """Return the bytes that the backward pass of one forward pass needs, the weights themselves left out."""
    tokens = config.tokens_per_batch // config.accumulation
    length = min(tokens, config.max_pack_tokens)
    rows = -(-tokens // length)
    ids = torch.zeros(rows, length, dtype=torch.long)
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
    at = torch.zeros(rows * length, dtype=torch.long)
    places = Places(at, at, {"temperature": torch.ones(len(at))})
    with _counting(network) as kept, _computing(config):
        network(ids, ids, mask, dict.fromkeys(network.outputs, places))
    return kept()


@contextmanager
def _counting(network: Network) -> Iterator[Callable[[], int]]:
    """Count the bytes that autograd keeps, each storage once."""
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
            held.append(tensor)  # no other storage may come by its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


def _computing(config: LearningConfig) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")


def measured_step(policy: Path, value: Path | None, config: LearningConfig) -> tuple[int, int]:
    """Return the bytes of two optimizer steps at their peak, and those of the program before them, measured in a
    process of its own: resident memory, or on a GPU what torch has allocated there.

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


def _measured(policy: Path, value: Path | None, config: LearningConfig) -> tuple[int, int]:
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
        learner.round(trees, seed=0)
    return _peak(), before


def _hidden_size(policy: Path) -> int:
    from transformers import AutoConfig

    size: int = AutoConfig.from_pretrained(policy, local_files_only=True).get_text_config().hidden_size
    return size


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _random_tree(seed: int, tokens: int) -> LabelledTree:
    """Return a tree of so many tokens, in which every second answer is right."""
    draws = random.Random(seed)

    def drawn() -> tuple[int, ...]:
        return tuple(draws.randrange(10, 100) for _ in range(min(STEP, tokens // WIDTH)))

    tree = Tree(prompt_tokens=drawn(), params=search_params("mcts"), sampling=Sampling(), seed=seed)
    size, ends = 2 * len(tree.prompt_tokens), [tree.root]
    while size <= tokens:
        parent = ends.pop(0)
        for _ in range(WIDTH):
            if size > tokens:
                break
            step = drawn()
            ends.append(
                tree.add(parent, tokens=step, logprobs=(-5.0,) * len(step), length=parent.length + len(step))
            )
            size += len(step)
    leaves = [node for node in tree.leaves() if node.parent is not None]
    for leaf in leaves:
        leaf.terminal = "eos"
    return LabelledTree(tree, {leaf.id: float(i % 2) for i, leaf in enumerate(leaves)})
