"""A checkpoint: everything that a resumed run needs, in one folder: models, optimizers, step, random state. No pickle.

    policy/, value/     as in a release, in float32; what no step changes (all weights below adapters, a model that is
                        not trained) as links to the files that it was read from
    state.safetensors   the optimizers' moments, what is trained over frozen weights, torch's random state
    learner.json        step, seed, calibration; written last

The folder is swapped in whole. A process killed between the two renames of a swap leaves the old one under
`.<name>.previous`; `settled` finds it there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramify.files import move, share
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.export import export
from ramify_trainer.learning.value_head import write_head

__all__ = ["LearnerState", "facts_for", "read_facts", "read_state", "settled", "write"]

FORMAT = 2


@dataclass(frozen=True, slots=True)
class LearnerState:
    """The small facts of a learner."""

    steps: int
    """Optimizer steps so far."""
    seed: int
    calibration: tuple[float, float]
    """The value's a and b: value = sigmoid(a·logit + b)."""
    from_reference: bool = False
    """True: the policy's weights, below its adapters if it has some, are the reference's."""
    base: str = ""
    """Id of the release whose policy lies below the adapters; empty if that is not known."""
    optimizer: str = "adamw"
    """The optimizer whose moments are kept, as `learning.optimizer` names it."""
    format: int = FORMAT


def write(
    folder: Path,
    facts: LearnerState,
    models: Mapping[str, tuple[Any, Mapping[str, Tensor], Path]],
    unchanged: Mapping[str, Path],
    head: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint as `folder`, in place of one that may be there. `models` gives for `policy` and `value` the
    Hugging Face model, its weights and the directory that it was read from; `unchanged` the directory of one whose
    weights are still those; `head` the weights of a value head in place of a value model."""
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, (model, weights, source) in models.items():
        export(model, weights, source, draft / name, torch.float32)
    for name, source in unchanged.items():
        share(source, draft / name)
    if head:
        write_head(draft / "value", head)
    save_file(dict(state), draft / "state.safetensors")
    (draft / "learner.json").write_text(json.dumps(asdict(facts), indent=2) + "\n", encoding="utf-8")
    _swap(draft, folder)


def _swap(draft: Path, folder: Path) -> None:
    previous = _previous(folder)
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    move(draft, folder)
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def settled(folder: Path) -> Path:
    """Return the checkpoint at `folder`, after an interrupted swap the one before. Raises `FileNotFoundError`."""
    for path in (folder, _previous(folder)):
        if (path / "learner.json").exists():
            return path
    raise FileNotFoundError(f"{folder} holds no checkpoint")


def read_facts(folder: Path) -> LearnerState:
    """Read `learner.json`. Raises `ValueError` if the checkpoint is of another format."""
    data = json.loads((folder / "learner.json").read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise ValueError(f"{folder} is of format {data.get('format')}; this Ramify reads {FORMAT}")
    return LearnerState(**{**data, "calibration": tuple(data["calibration"])})


def facts_for(folder: Path, config: LearningConfig) -> LearnerState:
    """Read `learner.json` of a checkpoint that training is to go on from. Raises `ValueError` if it is of another
    format or optimizer."""
    facts = read_facts(folder)
    if facts.optimizer != config.optimizer:
        raise ValueError(
            f'{folder} has moments of the optimizer "{facts.optimizer}": set learning.optimizer to that, '
            f'not "{config.optimizer}"'
        )
    return facts


def read_state(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "state.safetensors"))
