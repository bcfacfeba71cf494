"""Releases on disk: whole or not there, verified, and never able to run code."""

import json
from pathlib import Path

import pytest

from ramify import weights
from ramify.weights import Details, Probe


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    """A policy and a value directory of a few bytes each."""
    for part in ("policy", "value"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "model.safetensors").write_bytes(part.encode())
    return tmp_path / "policy", tmp_path / "value"


@pytest.fixture
def details() -> Details:
    probe = Probe(prompt=(1, 2), continuation=(3, 4), logprobs=(-0.5, -1.5), value=0.25)
    return Details(
        name="tiny", default_task="countdown", canary=(probe,), metrics={"greedy": 0.3}, training_step=7
    )


@pytest.fixture
def release(tmp_path: Path, parts: tuple[Path, Path], details: Details) -> weights.Release:
    return weights.publish(tmp_path / "weights", *parts, details)


def test_a_published_release_loads_as_it_was_described(release: weights.Release, details: Details) -> None:
    loaded = weights.load_release(release.path)
    assert loaded == release
    assert loaded.id == "v000001"
    assert loaded.manifest.canary == details.canary
    assert loaded.manifest.metrics == {"greedy": 0.3}
    assert loaded.policy_path.joinpath("model.safetensors").read_bytes() == b"policy"
    assert loaded.manifest.value == "model"
    assert loaded.value_head is None
    assert loaded.value_path is not None
    assert loaded.value_path.joinpath("model.safetensors").read_bytes() == b"value"


def test_ids_count_up_and_are_listed_oldest_first(
    tmp_path: Path, parts: tuple[Path, Path], details: Details, release: weights.Release
) -> None:
    second = weights.publish(tmp_path / "weights", *parts, details.model_copy(update={"parent": release.id}))
    weights.publish(tmp_path / "weights", *parts, details, release_id="v000010")
    assert second.id == "v000002"
    assert second.manifest.parent == "v000001"
    assert weights.list_releases(tmp_path / "weights") == ["v000001", "v000002", "v000010"]
    assert weights.next_id(tmp_path / "weights") == "v000011"
    assert weights.list_releases(tmp_path / "nowhere") == []


def test_a_release_is_never_overwritten(
    tmp_path: Path, parts: tuple[Path, Path], details: Details, release: weights.Release
) -> None:
    with pytest.raises(weights.WeightsError, match="never overwritten"):
        weights.publish(tmp_path / "weights", *parts, details, release_id=release.id)


def test_a_failed_publication_leaves_nothing_behind(
    tmp_path: Path, parts: tuple[Path, Path], details: Details
) -> None:
    (parts[0] / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(weights.WeightsError, match="not allowed"):
        weights.publish(tmp_path / "weights", *parts, details)
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize(
    "bad", ["", "v1", "v0000001", "V000001", "v00000a", "../v000001", "v000001/../x", "v٠٠٠٠٠١"]
)
def test_only_v_and_six_digits_is_an_id(tmp_path: Path, bad: str) -> None:
    with pytest.raises(weights.ReleaseNotFound):
        weights.release_path(tmp_path, bad)


def test_a_missing_release_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(weights.ReleaseNotFound):
        weights.load_release(tmp_path / "v000009")


def test_a_directory_that_is_no_release_is_answered_with_what_to_give(
    release: weights.Release, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for path, advice in (
        (tmp_path / "empty", r"with a manifest\.json"),
        (release.policy_path, "--policy serves one"),
        (release.path.parent, f"such as .*{release.id}"),
    ):
        with pytest.raises(weights.ReleaseNotFound, match=advice):
            weights.load_release(path)


def test_a_release_without_its_marker_is_incomplete_and_unlisted(release: weights.Release) -> None:
    (release.path / "READY").unlink()
    with pytest.raises(weights.WeightsError, match="READY"):
        weights.load_release(release.path)
    assert weights.list_releases(release.path.parent) == []


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "name", ["policy/pytorch_model.bin", "value/x.pt", "policy/x.pkl", "policy/modeling.py", "x.sh"]
)
def test_files_that_could_run_code_are_refused(release: weights.Release, name: str, verify: bool) -> None:
    (release.path / name).write_bytes(b"")
    with pytest.raises(weights.WeightsError, match=r"not allowed|neither"):
        weights.load_release(release.path, verify=verify)


@pytest.mark.parametrize("name", ["policy/model.safetensors", "value/extra.json", "policy/more", "READY"])
def test_symbolic_links_are_refused(release: weights.Release, name: str, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (release.path / name).unlink(missing_ok=True)
    (release.path / name).symlink_to(tmp_path / "real.json")
    with pytest.raises(weights.WeightsError, match="link"):
        weights.load_release(release.path)


def test_a_release_that_is_itself_a_link_is_refused(release: weights.Release, tmp_path: Path) -> None:
    (tmp_path / "v000001").symlink_to(release.path)
    with pytest.raises(weights.WeightsError, match="link"):
        weights.load_release(tmp_path / "v000001")


def test_publishing_does_not_follow_links(tmp_path: Path, parts: tuple[Path, Path], details: Details) -> None:
    (parts[0] / "more.json").symlink_to(parts[0] / "config.json")
    with pytest.raises(weights.WeightsError, match="link"):
        weights.publish(tmp_path / "weights", *parts, details)


def test_a_changed_byte_is_found(release: weights.Release) -> None:
    path = release.policy_path / "model.safetensors"
    path.write_bytes(b"pol1cy")
    with pytest.raises(weights.WeightsError, match="sha256"):
        weights.load_release(release.path)
    assert weights.load_release(release.path, verify=False).id == release.id


def test_a_missing_an_extra_and_a_cut_file_are_found_even_unverified(release: weights.Release) -> None:
    extra = release.path / "value" / "extra.json"
    extra.write_text("{}")
    with pytest.raises(weights.WeightsError, match=r"extra\.json"):
        weights.load_release(release.path, verify=False)
    extra.unlink()
    (release.path / "value" / "model.safetensors").write_bytes(b"v")
    with pytest.raises(weights.WeightsError, match="bytes"):
        weights.load_release(release.path, verify=False)
    (release.path / "value" / "model.safetensors").unlink()
    with pytest.raises(weights.WeightsError, match="missing"):
        weights.load_release(release.path, verify=False)


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"id": "v000002"},
        {"id": "latest"},
        {"format": 2},
        {"files": {"../../etc/passwd": {"sha256": "0" * 64, "size": 1}}},
        {"files": {"policy/../x.json": {"sha256": "0" * 64, "size": 1}}},
        {"canary": [{"prompt": [1], "continuation": [2, 3], "logprobs": [-1.0], "value": 0.5}]},
        {"calibration": {"a": 1.0, "b": 0.0, "c": 0.0}},
        {"refine_template": "Try again."},
    ],
)
def test_a_manifest_that_breaks_its_schema_is_refused(
    release: weights.Release, change: dict[str, object]
) -> None:
    path = release.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(weights.WeightsError, match=r"manifest\.json"):
        weights.load_release(release.path)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null"])
def test_a_manifest_that_is_missing_or_no_json_object_is_refused(
    release: weights.Release, text: str | None
) -> None:
    path = release.path / "manifest.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(weights.WeightsError, match=r"manifest\.json"):
        weights.load_release(release.path)


def test_every_fault_is_of_one_family() -> None:
    for name in weights.__all__:
        item = getattr(weights, name)
        if isinstance(item, type) and issubclass(item, Exception):
            assert issubclass(item, weights.WeightsError)
