"""A linear value head on the policy's own trunk, in place of a value model.

logit = weight · h + bias, with h the policy's hidden state after its final norm (what its `lm_head` sees).
"""

from __future__ import annotations

from pathlib import Path

from ramify.weights.manifest import ValueKind, WeightsError
from ramify.weights.tensors import json_object, require_finite, tensors_in

HEAD = "head.safetensors"
"""The one file of `value/` in a release whose value is a head."""
HIDDEN_SIZE = ("hidden_size", "n_embd", "d_model")
"""Keys under which a config.json gives the width of the hidden states."""


def value_kind(folder: Path) -> ValueKind:
    """Return whether the `value` directory of a release or a candidate holds a value model or a head."""
    return "trunk" if (Path(folder) / HEAD).exists() else "model"


def hidden_size(policy: Path) -> int:
    """Return the width of the hidden states of a Hugging Face directory. Raises `WeightsError`."""
    path = Path(policy) / "config.json"
    try:
        config = json_object(path.read_bytes(), path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    text = config.get("text_config")
    for source in (config, text if isinstance(text, dict) else {}):
        for key in HIDDEN_SIZE:
            if type(size := source.get(key)) is int and size > 0:
                return size
    raise WeightsError(f"{path} gives no hidden_size, which the value head's width must be")


def check_value_head(file: Path, size: int, *, numbers: bool = True) -> None:
    """Raise `WeightsError` unless a file holds a value head for hidden states of `size` numbers: float32 tensors
    `weight` [1, size] and `bias` [1], all of them finite, and nothing else. numbers: read them, rather than the header
    alone."""
    file = Path(file)
    try:
        tensors = tensors_in(file)
    except OSError as error:
        raise WeightsError(f"the value head {file} cannot be read: {error}") from error
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    if found != {"weight": ("F32", (1, size)), "bias": ("F32", (1,))}:
        held = ", ".join(
            f"{name[:100]} {dtype} {list(shape)}" for name, (dtype, shape) in sorted(found.items())
        )
        raise WeightsError(
            f"the value head {file} holds {held or 'nothing'}; F32 weight [1, {size}] and F32 bias [1] are needed"
        )
    if numbers:
        require_finite(tensors)
