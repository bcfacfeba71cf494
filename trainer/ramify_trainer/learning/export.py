"""A network's weights as a Hugging Face directory that holds exactly the tensors of another: same names and shapes.

A server that runs loads new weights only if they have the tensors of those it serves. Transformers' own names are not
those: it lists a tied `lm_head` beside the embeddings, fuses experts when it loads them, and adds or drops prefixes. So
the directory that the run began with decides what is written. Two rules make sure that nothing trained is lost: every
weight of the model must find its place, or be a second name of one that did; and a tensor of the directory that the
model does not hold at all (old buffers) is copied from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from ramify.files import move
from ramify.weights.tensors import Tensor as Stored
from ramify.weights.tensors import tensors_of

__all__ = ["export"]

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth")
"""Files of a model directory that hold weights, and are not copied."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of numbers that can be trained and written back, by safetensors' names."""


def export(
    model: Any, weights: Mapping[str, Tensor], like: Path, folder: Path, dtype: torch.dtype | None = None
) -> None:
    """Write `weights` (by the names of the Hugging Face `model`) as `folder`, with one `model.safetensors` of the
    tensors that `like` holds and every other file of `like`. `folder` appears whole or not at all.

    dtype: of the numbers; None: each tensor's own in `like`. Raises `FileExistsError` if `folder` is there, and
    `ValueError` if a weight is not finite, has no place in `like`, or has another shape there."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already")
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    tensors = _laid_out(model, weights, like, dtype)
    shutil.copytree(like, draft, ignore=shutil.ignore_patterns(*WEIGHTS))
    save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
    for path in draft.iterdir():
        path.chmod(0o644)
    move(draft, folder)


def _laid_out(
    model: Any, weights: Mapping[str, Tensor], like: Path, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Return the tensors to write, by the names in `like`."""
    own = dict(revert_weight_conversion(model, dict(weights)))
    stored = tensors_of(like)
    names = {name: _own_name(name, own, model.base_model_prefix) for name in stored}
    tensors = {}
    for name, tensor in stored.items():
        mine = names[name]
        if mine is None:
            tensors[name] = _copied(name, tensor)
        else:
            tensors[name] = _cast(name, own[mine], tensor, dtype)
    _require_all_placed(model, own, {mine for mine in names.values() if mine is not None}, like)
    return tensors


def _own_name(name: str, own: Mapping[str, Tensor], prefix: str) -> str | None:
    """Return the model's name for a stored tensor, which may be of the trunk alone; None if it holds no such tensor."""
    known = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
    return next((mine for mine in known if mine in own), None)


def _cast(name: str, weight: Tensor, stored: Stored, dtype: torch.dtype | None) -> Tensor:
    if tuple(weight.shape) != stored.shape:
        raise ValueError(
            f"{name} has the shape {tuple(weight.shape)}, not {stored.shape} as in {stored.file}"
        )
    if not weight.is_floating_point():
        return weight.detach().to("cpu").contiguous()
    if stored.dtype not in DTYPES:
        raise ValueError(f"{stored.file}: {name} is of type {stored.dtype}, which cannot be trained")
    cast = weight.detach().to("cpu", dtype or DTYPES[stored.dtype]).contiguous()
    if not torch.isfinite(cast).all():
        raise ValueError(f"{name} holds numbers that are not finite: these weights are not exported")
    return cast


def _copied(name: str, stored: Stored) -> Tensor:
    with safe_open(stored.file, "pt") as tensors:
        copy: Tensor = tensors.get_tensor(name)
    return copy


def _require_all_placed(model: Any, own: Mapping[str, Tensor], placed: set[str], like: Path) -> None:
    """Raise `ValueError` if a weight would be lost: neither placed, nor equal to one that is (tied), nor a buffer."""
    buffers = {name for name, _ in model.named_buffers()}
    lost = [
        name
        for name, weight in own.items()
        if name not in placed | buffers and not any(_same(weight, own[other]) for other in placed)
    ]
    if lost:
        shown = ", ".join(sorted(lost)[:3])
        raise ValueError(f"{like} has no place for {len(lost)} trained tensors: {shown}")


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
