"""A LoRA adapter on a policy: two matrices of a low rank beside each of some linear layers, in PEFT's own files.

A layer with the weight W then computes with W + (alpha / rank) · B · A (Hu et al. 2021, arXiv 2106.09685).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ramify.weights.manifest import WeightsError
from ramify.weights.tensors import Tensor, json_object, require_finite, tensors_in, tensors_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = frozenset({CONFIG, WEIGHTS})
PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "lora_bias": False,
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "alora_invocation_tokens": None,
}
"""Values that a configuration must have if it names them: others change the formula, or other weights."""
BASE_CHANGED_BY = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""Beginnings of PEFT's `init_lora_weights` that take from the base's weights what the adapter begins with."""
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
LISTED = 3
"""Names shown of a longer list."""


def adapter_rank(folder: Path) -> int:
    """Return the rank of the adapter in a directory. Raises `WeightsError` for one that is not plain LoRA."""
    path = Path(folder) / CONFIG
    try:
        config = json_object(path.read_bytes(), path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    for name, plain in PLAIN.items():
        if config.get(name, plain) not in (plain, None):
            raise WeightsError(f"{path}: {name} is {str(config[name])[:80]}; plain LoRA has {plain}")
    begun = str(config.get("init_lora_weights", ""))
    if begun.lower().startswith(BASE_CHANGED_BY):
        raise WeightsError(
            f"{path}: init_lora_weights is {begun[:80]}: this adapter stands on a base changed as it began, not on the "
            "policy; merge it, or have PEFT convert it (save_pretrained, path_initial_model_for_weight_conversion)"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise WeightsError(
            f"{path}: r is {str(rank)[:20]} and lora_alpha {str(alpha)[:20]}; both are above 0 and finite"
        )
    return rank


def check_adapter(folder: Path, policy: Path, *, numbers: bool = True) -> None:
    """Raise `WeightsError` unless a directory holds a plain LoRA adapter for the policy in another: a pair of finite
    matrices [rank, in] and [out, rank] for each of some of its weights [out, in], and nothing else. numbers: read
    them, rather than the headers alone."""
    rank, file = adapter_rank(folder), Path(folder) / WEIGHTS
    try:
        tensors = tensors_in(file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error}") from error
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise WeightsError(
                f"{file}: {name[:100]} is not base_model.model.LAYER.lora_A.weight, nor lora_B"
            )
        pairs.setdefault(match[1], {})[match[2]] = tensor
    stored = tensors_of(policy)
    layers = {name.removesuffix(".weight"): t.shape for name, t in stored.items() if len(t.shape) == 2}
    if foreign := sorted(pairs.keys() - layers.keys()):
        raise WeightsError(f"{file}: the policy has no matrix of {', '.join(foreign[:LISTED])}")
    for name, pair in pairs.items():
        shapes = {which: tensor.shape for which, tensor in pair.items()}
        out, into = layers[name]
        if shapes != {"A": (rank, into), "B": (out, rank)}:
            raise WeightsError(f"{file}: {name} has {shapes}; A is {(rank, into)} and B {(out, rank)}")
    if not pairs:
        raise WeightsError(f"{file} holds no matrices")
    if numbers:
        require_finite(tensors)
