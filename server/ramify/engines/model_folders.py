"""Checks of the files of a model before anything is started: can it be served at all?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.engines.errors import EngineStartFailed

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""A path that may be meant as the name of a model on a hub."""
OTHER_KINDS = "other kinds of reward model are served by the settings' table [scorer] (docs/scorers.md)"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Attention head sizes that vLLM 0.32 has CPU kernels for (v1/attention/backends/cpu_attn.py)."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """Facts about a model from its files."""

    path: Path
    head_size: int | None
    hidden_size: int | None
    """Width of the hidden states."""
    dtype: str
    """Precision of the weights by config.json: "bfloat16", "float32", ..."""


def read_model_folder(path: Path, role: str, *, weights: bool = True) -> ModelFolder:
    """Check one model directory, for weights too if they are needed; `role` is "policy" or "value model", for the
    messages. Raises `EngineStartFailed`."""
    check_files(path, role, weights=weights)
    config = model_config(path, role)
    _check_architecture(path, role, config)
    return facts(path, config)


def facts(path: Path, config: Any) -> ModelFolder:
    """Read off a model's configuration what the engines need to know of it."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    hidden = getattr(text, "hidden_size", None)
    size = getattr(text, "head_dim", None) or (hidden // heads if heads and hidden else None)
    precision = str(config.dtype or text.dtype or "auto").removeprefix("torch.")
    return ModelFolder(path, size, hidden, precision)


def check_files(path: Path, role: str, *, weights: bool = True) -> None:
    """Refuse a directory that lacks a configuration or, if `weights`, safetensors. Raises `EngineStartFailed`."""
    if not path.is_dir():
        raise EngineStartFailed(
            f"the {role} directory {path} does not exist; a model of a hub is fetched first: "
            f"hf download {path if HUB_NAME.fullmatch(str(path)) else 'NAME'} --local-dir DIR"
        )
    if not (path / "config.json").is_file():
        release = (path / "manifest.json").is_file()
        kind = "it is a release, which --release serves" if release else "not a Hugging Face model"
        raise EngineStartFailed(f"the {role} directory {path} holds no config.json: {kind}")
    if weights and not list(path.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        kind = f"only {', '.join(pickled[:3])}, which can run code when loaded" if pickled else "no weights"
        raise EngineStartFailed(f"the {role} directory {path} holds {kind}: safetensors files are needed")


def _check_architecture(path: Path, role: str, config: Any) -> None:
    """Refuse a classifier as a policy, and anything but a classifier of one label as a value model."""
    architectures: list[str] = config.architectures or []
    classifies = any(name.endswith("ForSequenceClassification") for name in architectures)
    if role == "policy":
        if classifies:
            raise EngineStartFailed(
                f"the policy {path} is a classifier ({architectures[0]}); a causal language model is needed"
            )
    elif not classifies:
        raise EngineStartFailed(
            f"the value model {path} is {' '.join(architectures) or 'of no architecture'}; a model for sequence "
            f"classification with one label is needed; {OTHER_KINDS}"
        )
    elif config.num_labels != 1:
        raise EngineStartFailed(
            f"the value model {path} has {config.num_labels} labels; one is needed; {OTHER_KINDS}"
        )


def check_cpu(folder: ModelFolder) -> None:
    """Refuse a model whose attention has no CPU kernel. Raises `EngineStartFailed`."""
    if folder.head_size is not None and folder.head_size not in CPU_HEAD_SIZES:
        raise EngineStartFailed(
            f"{folder.path} has attention heads of size {folder.head_size}; on a CPU vLLM serves sizes "
            f"{', '.join(map(str, CPU_HEAD_SIZES))}"
        )


def check_value_head(path: Path, policy: ModelFolder) -> None:
    """Refuse a file that is no finite value head for the policy's hidden states. Raises `EngineStartFailed`."""
    from ramify import weights  # reads tensors with numpy, which only a value head needs here

    if policy.hidden_size is None:
        raise EngineStartFailed(f"{policy.path} gives no hidden size, which a value head's width must be")
    try:
        weights.check_value_head(path, policy.hidden_size)
    except weights.WeightsError as error:
        raise EngineStartFailed(str(error)) from error


def model_config(path: Path, role: str) -> Any:
    """Read a model's configuration with transformers, running none of its code. Raises `EngineStartFailed`."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers raises ValueError, KeyError, OSError by turns
        raise EngineStartFailed(
            f"the {role} {path} is of no architecture that this transformers version knows: {error}"
        ) from error
