"""Policy and value of any Hugging Face directory: loaded, and read at chosen places.

The value is a model of its own, or a linear head on the policy's trunk. Each network is wrapped in a module whose one
forward pass takes packed rows, so that data parallelism and sharding see every call. Dropout is off. Weights are held
in float32, whatever the directory holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from ramify.weights import HEAD, value_kind
from ramify_trainer.learning.adapters import merge_adapter, read_adapter
from ramify_trainer.learning.batches import Batch, Places, collate
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.lm_head import scored, trunk_of
from ramify_trainer.learning.packing import Piece
from ramify_trainer.learning.value_head import closing_of, read_head


class Network(nn.Module):
    """A Hugging Face model, read at chosen places of packed rows."""

    outputs: tuple[str, ...]
    """Names of what can be read: `policy`, `value`, or both."""
    closing: frozenset[int] = frozenset()
    """Tokens before which a value is read, and not after them (see `packing.value_place`)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def trained_as(self, parameter: str) -> str:
        """Return the output whose learning rate a parameter has."""
        return self.outputs[0]

    @property
    def trains(self) -> bool:
        """True if something of it is in training; else it is only read."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def changes(self) -> bool:
        """True if training changes the model's own weights; those of adapters and of a head on its trunk are not."""
        return not self.adapted and any(p.requires_grad for p in self.model.parameters())

    @property
    def adapted(self) -> bool:
        """True if the model has adapters."""
        return any(".lora_" in name for name, _ in self.named_parameters())

    def judged(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Return the value's logits [k] at places of the flattened rows [R, L], each of which is one path."""
        logits: Tensor = self(tokens, tokens, None, {"value": Places(at, at, {})})["value"]
        return logits

    def _states(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Return the hidden states of the flattened rows, [R·L, H]. Rows of single paths come without positions and
        mask: the model does as it always does, whatever its layers are."""
        seen = {} if mask is None else {"position_ids": positions, "attention_mask": self._added(mask)}
        out = trunk_of(self.model)(input_ids=tokens, **seen, use_cache=False)
        states: Tensor = out.last_hidden_state.flatten(0, 1)
        return states

    def _added(self, mask: Tensor) -> Tensor:
        """Return what is added to the attention scores, [R, 1, L, L]: 0, or the least number for what must not be
        seen."""
        kind = (
            torch.get_autocast_dtype(mask.device.type)
            if torch.is_autocast_enabled(mask.device.type)
            else None
        )
        kind = kind or self.model.dtype
        added = torch.zeros(mask.shape, dtype=kind, device=mask.device)
        return added.masked_fill_(~mask, torch.finfo(kind).min)


N = TypeVar("N", bound=Network)


class PolicyNetwork(Network):
    """A causal language model."""

    outputs: tuple[str, ...] = ("policy",)

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, readings: Mapping[str, Places]
    ) -> dict[str, Tensor]:
        """Return as `policy` ln π [k] of the labels after places of the rows [R, L], and as `entropy` π's there."""
        return self._scored(self._states(tokens, positions, mask), readings["policy"])

    def _scored(self, states: Tensor, places: Places) -> dict[str, Tensor]:
        logprobs, entropy = scored(
            self.model, states[places.at], places.labels, places.columns["temperature"]
        )
        return {"policy": logprobs, "entropy": entropy}


class TrunkNetwork(PolicyNetwork):
    """A causal language model with a linear value head on its trunk, which reads what `lm_head` reads."""

    outputs = ("policy", "value")

    detached: bool = False
    """True: the value's gradient ends at the head."""

    def __init__(self, model: Any, head: nn.Linear, closing: frozenset[int]) -> None:
        super().__init__(model)
        self.head, self.closing = head, closing

    def trained_as(self, parameter: str) -> str:
        return "value" if parameter.startswith("head.") else "policy"

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, readings: Mapping[str, Places]
    ) -> dict[str, Tensor]:
        """Return what `readings` ask for, in one pass: `policy` and `entropy` as above, and as `value` the logit [k] of
        the sequence that ends at each place, calibration left out."""
        states = self._states(tokens, positions, mask)
        outputs = self._scored(states, readings["policy"]) if "policy" in readings else {}
        if "value" in readings:
            outputs["value"] = self._judged(states[readings["value"].at])
        return outputs

    def _judged(self, states: Tensor) -> Tensor:
        """Return the logits [k] of hidden states [k, H], in float32, as the server's engine does."""
        if self.detached:
            states = states.detach()
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.head(states.float())
        return logits[:, 0].clone()


class ValueNetwork(Network):
    """A one-label sequence classifier over a causal trunk (`model.score` on the trunk's hidden states).

    A classifier's head is linear in the hidden state of the last token, so that one pass gives the logit at the end of
    every step: the trunk is causal."""

    outputs = ("value",)

    def forward(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, readings: Mapping[str, Places]
    ) -> dict[str, Tensor]:
        """Return as `value` the logit [k] of the sequence that ends at each place, calibration left out."""
        logits: Tensor = self.model.score(self._states(tokens, positions, mask)[readings["value"].at])
        return {"value": logits[:, 0].float().clone()}


def load_policy(
    folder: Path, config: LearningConfig, *, trained: bool = True, adapter: Path | None = None
) -> PolicyNetwork:
    """Return the causal language model in `folder`, in float32 and without dropout; with adapters if so configured.

    adapter: the one on it that training begins with. Raises `ValueError` if the configured ones are others."""
    network = PolicyNetwork(_causal(folder, config.attention))
    return _begin_at(adapter, _finish(network, config if trained else None), config)


def load_value(folder: Path, config: LearningConfig, *, trained: bool = True) -> ValueNetwork:
    """Return the classifier in `folder`. Raises `ValueError` if it has more than one label, or no head on a trunk."""
    return _finish(_classifier(folder, config.attention), config if trained else None)


def load_trunk(
    policy: Path, head: Path, config: LearningConfig, *, adapter: Path | None = None
) -> TrunkNetwork:
    """Return the causal language model in `policy` with the value head in the file `head`. If the configuration trains
    only one of policy and value, what the other alone would move is frozen. adapter: as in `load_policy`."""
    network = _with_head(policy, head, _causal(policy, config.attention))
    return _begin_at(adapter, _finish_trunk(network, config), config)


def _causal(folder: Path, attention: str | None, adapter: Path | None = None) -> Any:
    """Return the causal language model in `folder`, with an adapter added to its weights if one is given."""
    model = AutoModelForCausalLM.from_pretrained(folder, **_options(folder, attention))
    return model if adapter is None else merge_adapter(model, adapter)


def _begin_at(adapter: Path | None, network: N, config: LearningConfig) -> N:
    if adapter is not None and config.lora is not None:
        own = network.state_dict()
        for name, matrix in read_adapter(adapter, own, config.lora).items():
            own[name].copy_(matrix)
    return network


def shaped(policy: Path, value: Path | None, config: LearningConfig) -> dict[str, Network]:
    """Return the networks that a learner holds, with their shapes and no weights of the directories, of which only
    `config.json` is read. value: None if the value is a head on the policy's trunk."""
    if value is None:
        model = _unloaded(AutoModelForCausalLM, policy, config)
        head = nn.Linear(model.config.get_text_config().hidden_size, 1)
        return {"policy": _finish_trunk(TrunkNetwork(model, head, frozenset()), config)}
    networks: dict[str, Network] = {}
    if config.train_policy:
        networks["policy"] = _finish(PolicyNetwork(_unloaded(AutoModelForCausalLM, policy, config)), config)
    if config.train_value or config.judges:
        model = _unloaded(AutoModelForSequenceClassification, value, config)
        networks["value"] = _finish(ValueNetwork(model), config if config.train_value else None)
    return networks


def _unloaded(kind: Any, folder: Path, config: LearningConfig) -> Any:
    options = _options(folder, config.attention)
    return kind.from_config(
        options["config"], dtype=options["dtype"], attn_implementation=options["attn_implementation"]
    )


def _finish_trunk(network: TrunkNetwork, config: LearningConfig) -> TrunkNetwork:
    network = _finish(network, config)
    network.detached = config.value_gradient == "head"
    # Data parallelism waits for the gradient of everything that is not frozen.
    if config.train_policy != config.train_value:
        (network.head if config.train_policy else network.model).requires_grad_(False)
    return network


def load_judge(policy: Path, value: Path, adapter: Path | None = None) -> Network:
    """Return what judges for a release or candidate of these directories, only to be read: the classifier in `value`,
    or the policy, with its adapter if it has one, if `value` holds a head on its trunk."""
    if value_kind(value) == "trunk":
        return _finish(_with_head(policy, value / HEAD, _causal(policy, None, adapter)), None)
    return _finish(_classifier(value, None), None)


def _classifier(folder: Path, attention: str | None) -> ValueNetwork:
    model = AutoModelForSequenceClassification.from_pretrained(folder, **_options(folder, attention))
    if model.config.num_labels != 1:
        raise ValueError(f"{folder}: a value model has 1 label, not {model.config.num_labels}")
    if not isinstance(getattr(model, "score", None), nn.Module):
        raise ValueError(
            f"{folder}: {type(model).__name__} has no `score` head on a causal trunk, so it cannot be read"
        )
    return ValueNetwork(model)


def _with_head(policy: Path, head: Path, model: Any) -> TrunkNetwork:
    size = model.config.get_text_config().hidden_size
    return TrunkNetwork(model, read_head(head, size), closing_of(policy))


def _options(folder: Path, attention: str | None) -> dict[str, Any]:
    """Return what the model in `folder` is loaded with. attention: None leaves the choice to transformers."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    for name, rate in vars(config).items():
        if "drop" in name and isinstance(rate, float):
            setattr(config, name, 0.0)
    return {
        "config": config,
        "dtype": torch.float32,
        "attn_implementation": attention,
        "local_files_only": True,
        "use_safetensors": True,
    }


def _finish(network: N, config: LearningConfig | None) -> N:
    """config: None if the network is only read."""
    network.eval()
    if config is None:
        return network.requires_grad_(False)
    if config.lora is not None:
        _add_adapters(network, config.lora)
    if config.gradient_checkpointing:
        _checkpoint_layers(network.model)
    return network


def _checkpoint_layers(model: Any) -> None:
    """Have each layer keep no more than its input for the backward pass, which computes the rest again."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} cannot compute its layers again: set learning.gradient_checkpointing to false"
        )
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    # What this asks of the embeddings only re-entrant checkpoints need; below a frozen trunk it would cost a pass.
    model.disable_input_require_grads()
    for layer in layers:
        layer.training = True  # the layer's own condition; what is in it stays as `eval` left it


def _add_adapters(network: Network, lora: LoraConfig) -> None:
    """Put adapters into the model; all else but a value model's head is frozen."""
    import peft

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    adapters = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=targets,
        exclude_modules=["score", "lm_head"],
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),
    )
    with warnings.catch_warnings():
        # peft gives fused experts twice the rank, and then looks for them among modules, which they are not
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
        peft.inject_adapter_in_model(adapters, network.model)
    if isinstance(network, ValueNetwork):
        network.model.score.requires_grad_(True)


def merged_weights(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's own weights by its own names, with what adapters learned added in; a head is no part of it.
    `weights` are the network's, whole and on the CPU. The network is left as it is."""
    learned = _learned(network, weights)
    return {
        name: weight + learned[name].to(weight) if name in learned else weight
        for name, weight in base_weights(weights).items()
    }


def base_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same without what the adapters learned."""
    return {
        _own_name(name): weight
        for name, weight in weights.items()
        if name.startswith("model.") and ".lora_" not in name
    }


def head_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a value head on the trunk, `weight` and `bias`; none if the network has no such head."""
    return {
        name.removeprefix("head."): weight for name, weight in weights.items() if name.startswith("head.")
    }


def _own_name(name: str) -> str:
    """Return a weight's name in the Hugging Face model. Experts with two adapted weights lie two `base_layer`s deep."""
    return name.replace(".base_layer", "").removeprefix("model.")


@contextmanager
def without_adapters(network: Network) -> Iterator[None]:
    """Have the network read as if it had no adapters, until the block ends."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class _Delta(nn.Module):
    """The sum that one adapter adds to its weight, as a module: it can then be computed from other tensors."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> Tensor:
        delta: Tensor = self.layer.get_delta_weight("default")
        return delta


def _learned(network: Network, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum that each adapter adds, by the name of the weight. peft knows how: experts and transposed layers
    (`Conv1D`) have formulas of their own."""
    merged = {}
    for name, module in network.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_delta_weight"):
            own = {
                f"layer.{key.removeprefix(f'{name}.')}": weight
                for key, weight in weights.items()
                if key.startswith(f"{name}.lora_")
            }
            target = _own_name(f"{name}.base_layer.{getattr(module, 'parameter_name', 'weight')}")
            merged[target] = functional_call(_Delta(module), own, ())
    return merged


class Reader:
    """A network, ready to be called."""

    def __init__(self, network: Network, config: LearningConfig, accelerator: Accelerator) -> None:
        self.network = network
        """The plain network, whose parameters are those in training."""
        self.config = config
        self.packs = True
        """True: trees are packed; else they are read path by path."""
        self.accelerator = accelerator
        if not network.trains:
            self.wrapped: Any = network.to(accelerator.device)
        elif config.sharding == "fsdp2" and accelerator.num_processes > 1:
            self.wrapped = _sharded(network, accelerator)
        else:
            self.wrapped = accelerator.prepare_model(network)

    @property
    def limit(self) -> int | None:
        """Tokens of one packed piece; None: each path is a piece."""
        return self.config.max_pack_tokens if self.packs else None

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Return the network's outputs at the places of a batch."""
        device = self.accelerator.device
        half = self.config.precision == "bf16"
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            outputs: dict[str, Tensor] = self.wrapped(
                batch.tokens, batch.positions, batch.mask, batch.readings
            )
        return outputs

    def load(self, weights: dict[str, Tensor]) -> None:
        """Put in some of the weights, by their names in the network. Raises `ValueError` for an unknown one."""
        own = self.network.state_dict()
        for name, weight in weights.items():
            if name not in own:
                raise ValueError(f"the checkpoint holds {name!r}, which this configuration does not train")
            own[name].copy_(placed_like(weight, own[name]))

    @torch.no_grad()
    def numbers(self, pieces: Sequence[Piece], output: str) -> list[NDArray[np.float32]]:
        """Return an output of the network at each piece's places, in their order: [k] numbers a piece."""
        numbers: list[NDArray[np.float32]] = []
        for group in _groups(pieces, self.config.tokens_per_batch):
            together = self.read(collate(group, self.packs))[output].float().cpu().numpy()
            numbers += np.split(together, np.cumsum([len(p.readings[output].at) for p in group])[:-1])
        return numbers


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


def _groups(pieces: Sequence[Piece], tokens: int) -> list[list[Piece]]:
    """Return neighbours of about `tokens` together."""
    groups: list[list[Piece]] = []
    size = tokens
    for piece in pieces:
        if size + len(piece) > tokens:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += len(piece)
    return groups


def _sharded(network: Network, accelerator: Accelerator) -> Network:
    """Shard the layers over all processes (FSDP2). Each is moved to its device by itself, so that no device ever holds
    all of them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in _layers(network):
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model of any class: the members of its outermost lists. A list in a layer, of experts
    say, is gathered with the layer, since not every process calls each of them."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)
