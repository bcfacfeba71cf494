from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models import TinyModels, write_tiny_models
from ramify.engines import EngineStartFailed
from ramify.engines.model_folders import check_cpu, check_value_head, read_model_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return write_tiny_models(tmp_path_factory.mktemp("models"), hidden=64, layers=1, heads=2)


def test_a_policy_and_a_value_model_pass(tiny: TinyModels) -> None:
    policy, value = read_model_folder(tiny.policy, "policy"), read_model_folder(tiny.value, "value model")
    assert (policy.head_size, policy.dtype) == (32, "bfloat16")
    check_cpu(policy)
    check_cpu(value)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineStartFailed, match="nowhere does not exist"):
        read_model_folder(tmp_path / "nowhere", "policy")


def test_a_directory_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineStartFailed, match=r"no config\.json"):
        read_model_folder(tmp_path, "policy")


def test_a_name_of_a_hub_is_answered_with_the_command_that_fetches_it() -> None:
    with pytest.raises(EngineStartFailed, match=r"hf download Qwen/Qwen3-0\.6B --local-dir"):
        read_model_folder(Path("Qwen/Qwen3-0.6B"), "policy")


def test_a_release_given_as_a_model_is_told_from_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    with pytest.raises(EngineStartFailed, match="which --release serves"):
        read_model_folder(tmp_path, "policy")


def test_pickled_weights_are_refused(tiny: TinyModels, tmp_path: Path) -> None:
    shutil.copy(tiny.policy / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EngineStartFailed, match=r"only pytorch_model\.bin, which can run code"):
        read_model_folder(tmp_path, "policy")


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    tiny = write_tiny_models(tmp_path, hidden=64, layers=1, heads=2, labels=3)
    with pytest.raises(EngineStartFailed, match="has 3 labels; one is needed"):
        read_model_folder(tiny.value, "value model")


def test_the_two_roles_are_not_interchangeable(tiny: TinyModels) -> None:
    with pytest.raises(EngineStartFailed, match="is a classifier"):
        read_model_folder(tiny.value, "policy")
    with pytest.raises(EngineStartFailed, match="is LlamaForCausalLM; a model for sequence classification"):
        read_model_folder(tiny.policy, "value model")


def test_an_unknown_architecture_is_refused(tiny: TinyModels, tmp_path: Path) -> None:
    shutil.copytree(tiny.policy, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(
        '{"model_type": "perceptron-1958", "architectures": ["Perceptron"]}'
    )
    with pytest.raises(EngineStartFailed, match="no architecture that this transformers version knows"):
        read_model_folder(tmp_path, "policy")


def test_a_head_size_without_a_cpu_kernel_is_refused(tmp_path: Path) -> None:
    tiny = write_tiny_models(tmp_path, hidden=96, layers=1, heads=2)
    with pytest.raises(EngineStartFailed, match="heads of size 48"):
        check_cpu(read_model_folder(tiny.policy, "policy"))


def write_head(path: Path, **changed: np.ndarray) -> Path:
    whole = {"weight": np.ones((1, 64), np.float32), "bias": np.zeros(1, np.float32)}
    save_file(whole | changed, path / "head.safetensors")
    return path / "head.safetensors"


def test_a_value_head_of_the_policys_width_passes(tiny: TinyModels, tmp_path: Path) -> None:
    check_value_head(write_head(tmp_path), read_model_folder(tiny.policy, "policy"))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"weight": np.ones((1, 32), np.float32)},
            r"weight F32 \[1, 32\]; F32 weight \[1, 64\] and F32 bias",
        ),
        ({"weight": np.ones((1, 64), np.float16)}, "weight F16"),
        ({"more": np.ones(1, np.float32)}, r"bias F32 \[1\], more F32"),
        ({"bias": np.array([np.nan], np.float32)}, "bias holds NaN or infinite"),
        ({"weight": np.full((1, 64), np.inf, np.float32)}, "weight holds NaN or infinite"),
    ],
)
def test_any_other_is_refused_with_what_it_holds(
    tiny: TinyModels, tmp_path: Path, changed: dict[str, np.ndarray], why: str
) -> None:
    with pytest.raises(EngineStartFailed, match=why):
        check_value_head(write_head(tmp_path, **changed), read_model_folder(tiny.policy, "policy"))


def test_a_value_head_that_cannot_be_read_is_refused(tiny: TinyModels, tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").write_bytes(b"no head")
    for path in (tmp_path / "head.safetensors", tmp_path / "nowhere"):
        with pytest.raises(EngineStartFailed, match=r"cannot be read|not a safetensors file"):
            check_value_head(path, read_model_folder(tiny.policy, "policy"))
