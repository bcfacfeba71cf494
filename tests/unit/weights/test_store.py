"""Releases in an object store: whole or not at all, one winner an id, and a cache that keeps what is in use."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fakes_releases import write_adapter, write_release
from fixtures_objects import S3Server, s3_server  # noqa: F401  (a fixture)
from ramify.objects import Bucket, Folder, ObjectOptions, ObjectStore, open_store
from ramify.weights import (
    Release,
    ReleaseNotFound,
    ReleaseStore,
    WeightsError,
    list_releases,
    load_release,
)


@pytest.fixture(params=["folder", "s3"])
def objects(request: Any, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/bucket", ObjectOptions())
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(server.bucket(), server.options())


@pytest.fixture
def folder(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/bucket", ObjectOptions())


def published(objects: ObjectStore, root: Path, *numbers: float) -> list[Release]:
    store = ReleaseStore(objects, root)
    made = [write_release(root, number, number / 10) for number in numbers]
    for release in made:
        store.publish(release)
    return made


def size_of(release: Release) -> int:
    return sum(file.size for file in release.manifest.files.values())


def test_a_published_release_is_listed_and_fetched_byte_for_byte(
    objects: ObjectStore, tmp_path: Path
) -> None:
    (release,) = published(objects, tmp_path / "trainer", 1.0)
    node = ReleaseStore(objects, tmp_path / "node")
    assert node.ids() == ["v000001"]
    assert node.manifest("v000001") == release.manifest
    node.fetch("v000001")
    names = [path.relative_to(release.path) for path in release.path.rglob("*") if path.is_file()]
    assert {n: (release.path / n).read_bytes() for n in names} == {
        n: (tmp_path / "node/v000001" / n).read_bytes() for n in names
    }
    assert load_release(tmp_path / "node/v000001").manifest == release.manifest
    assert [path.name for path in (tmp_path / "node").iterdir()] == ["v000001"]


def test_of_two_publishers_of_one_id_the_second_is_told_and_the_first_stays(
    objects: ObjectStore, tmp_path: Path
) -> None:
    (first,) = published(objects, tmp_path / "one", 1.0)
    with pytest.raises(WeightsError, match=r"another v000001 is in \S+; the next free id there is v000002"):
        published(objects, tmp_path / "two", 2.0)
    assert ReleaseStore(objects, tmp_path / "node").manifest("v000001") == first.manifest
    ReleaseStore(objects, tmp_path / "one").publish(first)  # again, as after a restart


def test_two_publishers_that_look_at_the_same_moment_do_not_both_win(
    folder: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(folder, tmp_path / "one", 1.0)
    late = ReleaseStore(folder, tmp_path / "two")
    monkeypatch.setattr(late, "ids", list)  # as it was when it looked
    with pytest.raises(WeightsError, match="another v000001"):
        late.publish(write_release(tmp_path / "two", 2.0, 0.2))


def test_an_id_is_free_if_neither_folder_nor_store_has_it(folder: ObjectStore, tmp_path: Path) -> None:
    published(folder, tmp_path / "one", 1.0, 2.0)
    other = ReleaseStore(folder, tmp_path / "other")
    assert other.next_id() == "v000003"
    write_release(tmp_path / "other", 3.0, 0.3, release_id="v000007")
    assert other.next_id() == "v000008"


def test_a_publication_that_was_cut_short_is_no_release_and_is_finished_later(
    folder: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            published(folder, tmp_path / "one", 1.0)
    node = ReleaseStore(folder, tmp_path / "node")
    assert node.ids() == []
    with pytest.raises(ReleaseNotFound, match="has no release v000001"):
        node.fetch("v000001")
    ReleaseStore(folder, tmp_path / "one").publish(load_release(tmp_path / "one/v000001"))
    node.fetch("v000001")


def test_an_adapter_comes_with_the_base_that_it_stands_on(objects: ObjectStore, tmp_path: Path) -> None:
    base = write_release(tmp_path / "trainer", 1.0, 0.1, names=("w", "layer.weight"))
    adapter = write_adapter(tmp_path / "trainer", base)
    ReleaseStore(objects, tmp_path / "trainer").publish(adapter)
    ReleaseStore(objects, tmp_path / "node").fetch(adapter.id)
    assert list_releases(tmp_path / "node") == [base.id, adapter.id]
    assert load_release(tmp_path / "node" / adapter.id).base is not None


@pytest.mark.parametrize("damage", ["flip", "lost"])
def test_a_damaged_release_is_refused_and_leaves_nothing(
    folder: ObjectStore, tmp_path: Path, damage: str
) -> None:
    (release,) = published(folder, tmp_path / "trainer", 1.0)
    digest = release.manifest.files["policy/model.safetensors"].sha256
    path = tmp_path / "bucket/files" / digest[:2] / digest
    if damage == "lost":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    said = "sha256" if damage == "flip" else "has no object"
    with pytest.raises(WeightsError, match=rf"v000001 of file:\S+ cannot be fetched: .*{said}"):
        ReleaseStore(folder, tmp_path / "node").fetch("v000001")
    assert list((tmp_path / "node").iterdir()) == []


def test_the_cache_removes_what_was_used_least_recently_and_never_what_is_in_use(
    folder: ObjectStore, tmp_path: Path
) -> None:
    made = published(folder, tmp_path / "trainer", 1.0, 2.0, 3.0, 4.0)
    node = ReleaseStore(folder, tmp_path / "node", most_bytes=2 * size_of(made[0]))
    for age, name in enumerate(("v000001", "v000002")):
        node.fetch(name)
        os.utime(tmp_path / "node" / name / "READY", (1000 + age, 1000 + age))
    node.fetch("v000001")  # used again
    node.fetch("v000003")
    assert list_releases(tmp_path / "node") == ["v000001", "v000003"]
    node.fetch("v000004", keep=["v000001"])
    assert list_releases(tmp_path / "node") == ["v000001", "v000004"]
    with pytest.raises(WeightsError, match=r"v000002 .* takes .*objects\.cache_bytes"):
        node.fetch("v000002", keep=["v000001", "v000004"])
    assert list_releases(tmp_path / "node") == ["v000001", "v000004"]


def test_the_cache_removes_nothing_that_the_store_does_not_have(folder: ObjectStore, tmp_path: Path) -> None:
    (first,) = published(folder, tmp_path / "trainer", 1.0)
    write_release(tmp_path / "node", 5.0, 0.5, release_id="v000009")
    node = ReleaseStore(folder, tmp_path / "node", most_bytes=size_of(first))
    with pytest.raises(WeightsError, match="cache_bytes"):
        node.fetch("v000001")
    assert list_releases(tmp_path / "node") == ["v000009"]


def test_a_release_at_hand_needs_no_store(
    tmp_path: Path,
    s3_server: S3Server,  # noqa: F811
) -> None:
    objects = open_store(s3_server.bucket(), s3_server.options(retries=0))
    assert isinstance(objects, Bucket)
    published(objects, tmp_path / "trainer", 1.0, 2.0)
    node = ReleaseStore(objects, tmp_path / "node")
    node.fetch("v000001")
    s3_server.doorway.shut()
    try:
        node.fetch("v000001")
        for call in (node.ids, lambda: node.fetch("v000002")):
            with pytest.raises(WeightsError, match="s3://"):
                call()
    finally:
        s3_server.doorway.open()
    assert list_releases(tmp_path / "node") == ["v000001"]


def test_adapters_that_name_each_other_as_their_base_are_refused(folder: ObjectStore, tmp_path: Path) -> None:
    base = write_release(tmp_path / "trainer", 1.0, 0.1, names=("w", "layer.weight"))
    adapter = write_adapter(tmp_path / "trainer", base)
    text = (adapter.path / "manifest.json").read_text()
    for own, other in (("v000001", "v000002"), ("v000002", "v000001")):
        changed = (
            text.replace('"v000001"', '"other"').replace('"v000002"', f'"{own}"').replace("other", other)
        )
        folder.create(f"releases/{own}.json", changed.encode())
    with pytest.raises(
        WeightsError, match="v000002 is an adapter on v000001, which is one itself, on v000002"
    ):
        ReleaseStore(folder, tmp_path / "node").fetch("v000002")


def test_an_adapter_whose_base_is_nowhere_is_told(folder: ObjectStore, tmp_path: Path) -> None:
    base = write_release(tmp_path / "trainer", 1.0, 0.1, names=("w", "layer.weight"))
    adapter = write_adapter(tmp_path / "trainer", base)
    folder.create(f"releases/{adapter.id}.json", (adapter.path / "manifest.json").read_bytes())
    with pytest.raises(
        WeightsError, match=r"v000002 is an adapter on v000001: .* has no release v000001"
    ) as refused:
        ReleaseStore(folder, tmp_path / "node").fetch(adapter.id)
    assert not isinstance(refused.value, ReleaseNotFound)


def test_a_folder_that_cannot_be_written_is_told_as_what_is_wrong_with_the_release(
    folder: ObjectStore, tmp_path: Path
) -> None:
    published(folder, tmp_path / "trainer", 1.0)
    (tmp_path / "node").write_text("in the way")
    with pytest.raises(WeightsError, match=r"v000001 of file:.* cannot be fetched: .*File exists"):
        ReleaseStore(folder, tmp_path / "node").fetch("v000001")


def test_what_a_killed_download_left_is_removed_once_it_is_old(folder: ObjectStore, tmp_path: Path) -> None:
    published(folder, tmp_path / "trainer", 1.0)
    for name, age in ((".fetching-old", 1_000_000), (".fetching-new", 0)):
        (tmp_path / "node" / name).mkdir(parents=True)
        os.utime(tmp_path / "node" / name, (time.time() - age,) * 2)
    ReleaseStore(folder, tmp_path / "node").fetch("v000001")
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == [".fetching-new", "v000001"]


def test_what_lies_beside_releases_is_no_release(folder: ObjectStore, tmp_path: Path) -> None:
    published(folder, tmp_path / "trainer", 1.0)
    folder.create("releases/latest.json", b"{}")
    folder.create("releases/v000002.json", b"{}")
    node = ReleaseStore(folder, tmp_path / "node")
    assert node.ids() == ["v000001", "v000002"]
    with pytest.raises(WeightsError, match=r"releases/v000002\.json is not a valid manifest"):
        node.fetch("v000002")


def test_a_fetch_is_told_in_the_log(
    folder: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (release,) = published(folder, tmp_path / "trainer", 1.0)
    with caplog.at_level(logging.INFO, logger="ramify.weights.store"):
        ReleaseStore(folder, tmp_path / "node").fetch("v000001")
    assert f"fetched release=v000001 bytes={size_of(release)}" in caplog.text
