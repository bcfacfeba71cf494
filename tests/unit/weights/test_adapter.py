"""Releases that are a LoRA adapter on another one's policy: what they hold, what they stand on, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ramify import weights
from ramify.weights import Details, Release, WeightsError

RANK, INTO, OUT = 2, 4, 6
LAYER = "model.layers.0.self_attn.q_proj"
NAME = f"base_model.model.{LAYER}"
MATRICES = {
    f"{NAME}.lora_A.weight": np.ones((RANK, INTO), np.float32),
    f"{NAME}.lora_B.weight": np.ones((OUT, RANK), np.float32),
}
PLAIN = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "target_modules": ["q_proj"]}
DETAILS = Details(name="tiny")


def model(folder: Path, number: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"hidden_size": 4}')
    save_file({f"{LAYER}.weight": np.full((OUT, INTO), number, np.float32)}, folder / "model.safetensors")
    return folder


def adapter(
    folder: Path,
    matrices: Mapping[str, Any] = MATRICES,
    **said: Any,
) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **said}))
    save_file(dict(matrices), folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Release:
    parts = model(tmp_path / "made/policy", 1), model(tmp_path / "made/value", 2)
    return weights.publish(tmp_path / "weights", *parts, DETAILS)


Publish = Callable[..., Release]


@pytest.fixture
def published(tmp_path: Path, base: Release) -> Publish:
    def publish(value: Path | None = None, **said: Any) -> Release:
        folder = adapter(tmp_path / f"made/adapter-{len(said)}", **said)
        try:
            return weights.publish(tmp_path / "weights", folder, value, DETAILS, base=base)
        finally:
            shutil.rmtree(folder)

    return publish


def test_an_adapter_has_its_base_s_policy_and_value(published: Publish, base: Release) -> None:
    release = published()
    assert weights.load_release(release.path) == release
    assert release.adapter == release.path / "policy_adapter"
    assert release.policy_path == base.policy_path
    assert release.value_path == base.value_path
    assert {path.parent.name for path in release.path.glob("*/*")} == {"policy_adapter"}
    assert release.stands_on_weights_of(base)
    assert base.stands_on_weights_of(release)
    assert base.adapter is None
    weights.require_alike(base, release)


def test_an_adapter_with_a_value_of_its_own_needs_other_weights(
    published: Publish, base: Release, tmp_path: Path
) -> None:
    release = published(value=model(tmp_path / "made/other", 3))
    assert release.value_path == release.path / "value"
    assert not release.stands_on_weights_of(base)
    assert release.stands_on_weights_of(base, judged_apart=True)
    weights.require_alike(base, release)


def test_a_base_that_is_gone_or_another_one_is_refused_by_both_names(
    published: Publish, base: Release, tmp_path: Path
) -> None:
    release = published()
    shutil.rmtree(base.path)
    with pytest.raises(WeightsError, match=r"v000002 is an adapter on v000001, which must lie beside it"):
        weights.load_release(release.path)
    parts = model(tmp_path / "made/policy2", 9), tmp_path / "made/value"
    other = weights.publish(tmp_path / "weights", *parts, DETAILS, release_id="v000001")
    with pytest.raises(WeightsError, match=f"{base.policy_digest[:12]}.*{other.policy_digest[:12]}"):
        weights.load_release(release.path)


def test_an_adapter_on_an_adapter_is_refused(published: Publish, tmp_path: Path) -> None:
    first = published()
    with pytest.raises(WeightsError, match="v000002, which is one itself, on v000001"):
        weights.publish(tmp_path / "weights", adapter(tmp_path / "second"), None, DETAILS, base=first)


def test_an_adapter_on_itself_is_refused(published: Publish) -> None:
    release = published()
    manifest = json.loads((release.path / "manifest.json").read_text())
    manifest["base"]["release"] = release.id
    (release.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="v000002, which is one itself, on v000002"):
        weights.load_release(release.path)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"use_dora": True}, "use_dora is True; plain LoRA has False"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is pissa_niter_16: .* a base changed"),
        ({"init_lora_weights": "OLoRA"}, "init_lora_weights is OLoRA"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": math.nan}, "lora_alpha nan; both are above 0 and finite"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is"),
        ({"r": 3}, r"; A is \(3, 4\) and B \(6, 3\)"),
        ({"matrices": {}}, "holds no matrices"),
        ({"matrices": {f"{NAME}.weight": np.ones((OUT, INTO), np.float32)}}, "is not base_model.model.LAYER"),
        ({"matrices": dict(list(MATRICES.items())[:1])}, "has {'A'"),
        (
            {"matrices": {name.replace("q_proj", "k_proj"): m for name, m in MATRICES.items()}},
            "the policy has no matrix of .*k_proj",
        ),
        ({"matrices": {name: m * np.nan for name, m in MATRICES.items()}}, "NaN"),
    ],
)
def test_what_is_no_plain_adapter_for_the_policy_is_refused(
    published: Publish, said: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        published(**said)


@pytest.mark.parametrize("begun", [True, False, "gaussian", "eva"])
def test_an_adapter_that_left_its_base_as_it_was_is_taken_however_it_began(
    published: Publish, begun: object
) -> None:
    assert published(init_lora_weights=begun).adapter is not None


def test_a_release_that_is_only_listed_has_its_weights_left_unread(published: Publish) -> None:
    release = published()
    numbers = {name: m * np.nan for name, m in MATRICES.items()}
    save_file(numbers, release.path / "policy_adapter/adapter_model.safetensors")
    assert weights.load_release(release.path, verify=False) == release
    with pytest.raises(WeightsError, match="sha256"):
        weights.load_release(release.path)


@pytest.mark.parametrize("extra", ["policy/config.json", "policy_adapter/notes.txt"])
def test_a_release_holds_a_policy_or_an_adapter_and_no_more(
    published: Publish, base: Release, extra: str, tmp_path: Path
) -> None:
    release = published()
    (release.path / extra).parent.mkdir(exist_ok=True)
    (release.path / extra).write_text("{}")
    manifest = json.loads((release.path / "manifest.json").read_text())
    manifest["files"][extra] = weights.FileDigest(
        sha256="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", size=2
    ).model_dump()
    (release.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match=r"policy_adapter holds|one of them is needed"):
        weights.load_release(release.path)


def test_an_adapter_folder_without_a_base_is_refused(published: Publish) -> None:
    release = published()
    manifest = json.loads((release.path / "manifest.json").read_text())
    (release.path / "manifest.json").write_text(json.dumps({**manifest, "base": None}))
    with pytest.raises(WeightsError, match="no other has the folder"):
        weights.load_release(release.path)
