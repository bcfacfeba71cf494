"""Releases whose value is a head on the policy's trunk: one file, of the policy's width, or not published at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from fakes_releases import write_release
from ramify import weights
from ramify.weights import Details, WeightsError

WIDTH = 4
SOUND = {"weight": np.ones((1, WIDTH), np.float32), "bias": np.zeros(1, np.float32)}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": WIDTH}))
    save_file({"w": np.ones(2, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def head(tmp_path: Path) -> Path:
    save_file(SOUND, tmp_path / "my-head.safetensors")
    return tmp_path / "my-head.safetensors"


def published(tmp_path: Path, policy: Path, value: Path) -> weights.Release:
    return weights.publish(tmp_path / "weights", policy, value, Details(name="tiny"))


def test_a_head_is_published_as_the_one_file_of_value(tmp_path: Path, policy: Path, head: Path) -> None:
    release = published(tmp_path, policy, head)
    assert weights.load_release(release.path) == release
    assert (release.manifest.value, release.value_path) == ("trunk", None)
    assert release.value_head == release.path / "value" / "head.safetensors"
    assert release.value_head.read_bytes() == head.read_bytes()


def test_a_folder_that_holds_one_is_published_alike(tmp_path: Path, policy: Path, head: Path) -> None:
    (tmp_path / "made").mkdir()
    head.rename(tmp_path / "made" / "head.safetensors")
    assert published(tmp_path, policy, tmp_path / "made").manifest.value == "trunk"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"weight": np.ones((1, 3), np.float32)},
            r"weight F32 \[1, 3\]; F32 weight \[1, 4\] and F32 bias \[1\]",
        ),
        ({"weight": np.ones(WIDTH, np.float32)}, r"weight F32 \[4\];"),
        ({"weight": np.ones((1, WIDTH), np.float16)}, "weight F16"),
        ({"bias": np.zeros(2, np.float32)}, r"bias F32 \[2\]"),
        ({"more": np.zeros(1, np.float32)}, "more F32"),
        ({"bias": np.array([np.nan], np.float32)}, "bias holds NaN"),
        ({"weight": np.full((1, WIDTH), np.inf, np.float32)}, "weight holds NaN or inf"),
    ],
)
def test_any_other_head_is_refused_with_what_is_wrong(
    tmp_path: Path, policy: Path, head: Path, changed: dict[str, Any], why: str
) -> None:
    save_file(SOUND | changed, head)
    with pytest.raises(WeightsError, match=why):
        published(tmp_path, policy, head)
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("held", [b"", b"no head", save({"bias": np.zeros(1, np.float32)})])
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, policy: Path, head: Path, held: bytes) -> None:
    head.write_bytes(held)
    with pytest.raises(WeightsError, match=r"not a safetensors file|holds bias F32 \[1\];"):
        published(tmp_path, policy, head)


def test_nothing_lies_beside_the_head(tmp_path: Path, policy: Path, head: Path) -> None:
    (tmp_path / "made").mkdir()
    head.rename(tmp_path / "made" / "head.safetensors")
    (tmp_path / "made" / "config.json").write_text("{}")
    with pytest.raises(
        WeightsError, match=r"value holds config.json, head.safetensors: .* head.safetensors alone"
    ):
        published(tmp_path, policy, tmp_path / "made")


@pytest.mark.parametrize(
    ("config", "taken"),
    [
        ({"text_config": {"hidden_size": WIDTH}}, True),
        ({"n_embd": WIDTH}, True),
        ({"hidden_size": 3, "text_config": {"hidden_size": WIDTH}}, False),
        ({"hidden_size": "4"}, False),
        ({}, False),
    ],
)
def test_the_width_is_that_of_the_policys_config(
    tmp_path: Path, policy: Path, head: Path, config: dict[str, Any], taken: bool
) -> None:
    (policy / "config.json").write_text(json.dumps(config))
    if taken:
        assert published(tmp_path, policy, head).value_head is not None
    else:
        with pytest.raises(WeightsError, match=r"hidden_size|are needed"):
            published(tmp_path, policy, head)


@pytest.mark.parametrize("said", ["model", "trunk"])
def test_a_manifest_that_says_the_other_kind_is_refused(tmp_path: Path, said: str) -> None:
    release = write_release(tmp_path, 1.0, 0.1, head=said == "model")
    manifest = release.path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"value": said}))
    with pytest.raises(WeightsError, match=r"lacks config.json|head.safetensors alone"):
        weights.load_release(release.path)


def test_a_manifest_without_the_field_is_of_a_value_model(tmp_path: Path) -> None:
    release = write_release(tmp_path, 1.0, 0.1)
    manifest = release.path / "manifest.json"
    rest = {k: v for k, v in json.loads(manifest.read_text()).items() if k != "value"}
    manifest.write_text(json.dumps(rest))
    assert weights.load_release(release.path).manifest.value == "model"


def test_a_head_takes_the_place_of_a_head_alone(tmp_path: Path) -> None:
    one, other = write_release(tmp_path, 1.0, 0.1, head=True), write_release(tmp_path, 2.0, 0.2, head=True)
    model = write_release(tmp_path, 1.0, 0.1)
    weights.require_alike(one.path, other.path)
    with pytest.raises(
        WeightsError, match=r"is a value model, and the release served is judged by a value head"
    ):
        weights.require_alike(one.path, model.path)
    with pytest.raises(
        WeightsError, match=r"is a value head .*, and the release served is judged by a value model"
    ):
        weights.require_alike(model.path, one.path)


def test_a_candidates_head_is_looked_at_before_it_is_published(tmp_path: Path) -> None:
    release = write_release(tmp_path, 1.0, 0.1, head=True)
    candidate = tmp_path / "candidate"
    release.path.rename(candidate)
    served = write_release(tmp_path, 1.0, 0.1, head=True)
    save_file(
        {**SOUND, "weight": np.full((1, 1), np.nan, np.float32)}, candidate / "value" / "head.safetensors"
    )
    with pytest.raises(WeightsError, match="weight holds NaN"):
        weights.require_alike(served.path, candidate)
