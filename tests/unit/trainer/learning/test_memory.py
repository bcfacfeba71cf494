"""The arithmetic of a step's memory counts what a real step of the same models holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from architectures import PLAIN
from fakes_training import TREES, write_release
from ramify_trainer.cli import app
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.memory import Alive, apart, measured_step, step_memory

CONFIG = LearningConfig(
    steps_per_round=1,
    tokens_per_batch=64,
    max_pack_tokens=32,
    kl_beta=0,
    warmup_steps=0,
    threads=1,
    tracker="none",
)
LORA = CONFIG.model_copy(update={"lora": LoraConfig(rank=4)})
EIGHT = CONFIG.model_copy(update={"optimizer": "adamw_8bit"})
JUDGED = CONFIG.model_copy(update={"objective": "path_ppo", "train_value": False})


SHARED = ("step", "qmap1", "qmap2")
"""Memory of an optimizer beside the moments; the tables of 8 bits are the same two for all parameters."""


def bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@pytest.mark.parametrize(
    "config",
    [CONFIG, LORA, JUDGED, EIGHT],
    ids=["all weights", "adapters", "a value that only judges", "8 bits"],
)
def test_weights_moments_and_gradients_are_those_of_a_real_step(
    tmp_path: Path, config: LearningConfig
) -> None:
    base = write_release(tmp_path).path
    expected = step_memory(base / "policy", base / "value", config)
    learner = Learner.start(config, base / "policy", base / "value", base / "policy", seed=3)
    learner.round(TREES, seed=1)
    trainees = learner._trainees.values()
    parameters = [list(reader.network.parameters()) for reader in learner._readers.values()]
    assert expected.weights == sum(bytes_of(p) for own in parameters for p in own)
    assert expected.gradients == max(sum(bytes_of(p) for p in own if p.requires_grad) for own in parameters)
    states = [state for trainee in trainees for state in trainee.optimizer.state.values()]
    moments = sum(bytes_of(t) for s in states for name, t in s.items() if name not in SHARED)
    assert expected.moments == moments
    groups = [group for trainee in trainees for group in trainee.optimizer.param_groups]
    assert not any(group.get("foreach", False) is not False for group in groups), (
        "no second copy of all moments, on a GPU"
    )


def test_what_is_kept_grows_with_tokens_and_shrinks_with_checkpoints(tmp_path: Path) -> None:
    policy = PLAIN["llama"].write(tmp_path)
    twice = CONFIG.model_copy(update={"tokens_per_batch": 128})
    again = twice.model_copy(update={"gradient_checkpointing": True})
    halves = twice.model_copy(update={"accumulation": 2})
    plain, more, less, split = (step_memory(policy, None, c) for c in (CONFIG, twice, again, halves))
    assert more.kept == pytest.approx(2 * plain.kept, rel=0.2)
    assert less.kept < 0.7 * more.kept
    assert split.kept == pytest.approx(plain.kept, rel=0.01)
    assert split.passes >= plain.kept + split.gradients, (
        "the second pass begins with the first one's gradients"
    )
    assert plain.kept < plain.passes
    assert plain.peak >= plain.weights + plain.moments + plain.gradients


def test_what_is_alive_is_counted_once_and_until_it_is_let_go() -> None:
    module = nn.Linear(256, 256, bias=False)  # 256 KiB in float32
    with Alive(module) as alive:
        rows = torch.zeros(512, 256)
        doubled = module(rows) * 2
        assert alive.now == 2 * 512 * 1024, (
            "zeros and result; what the layer gave is gone, the weight is not counted"
        )
        assert alive.peak == 3 * 512 * 1024
        view = doubled.view(-1)
        del doubled
        assert alive.now == 2 * 512 * 1024, "a view holds the storage"
        del rows, view
    assert alive.now == 0


def test_a_step_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    base = write_release(tmp_path).path
    step = measured_step(base / "policy", None, CONFIG)
    assert step.peak >= step.before > 2**26  # loading torch takes more than this little step
    assert step.seconds_per_step > 0


@pytest.mark.parametrize(
    ("work", "arguments"),
    [(os.abort, ()), (exec, ("import torch; raise torch.OutOfMemoryError('CUDA out of memory')",))],
    ids=["the system has killed it", "torch says so"],
)
def test_steps_that_do_not_fit_are_an_error_with_what_to_do(
    work: Callable[..., None], arguments: tuple[str]
) -> None:
    with pytest.raises(TrainerError, match="do not fit into the memory here; gradient_checkpointing"):
        apart(work, *arguments)


def test_a_value_model_without_its_policy_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["memory", "--value", str(tmp_path)])
    assert result.exit_code == 1
    assert "--value goes with --policy" in result.output


def test_the_command_says_it_of_a_configuration_without_weights(tmp_path: Path) -> None:
    folder = PLAIN["llama"].write(tmp_path)
    (folder / "model.safetensors").unlink()
    result = CliRunner().invoke(app, ["memory", "--policy", str(folder)])
    assert result.exit_code == 0, result.output
    assert "parameters" in result.output
    assert "peak of a step" in result.output
