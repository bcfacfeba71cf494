"""A reader sees a file or a folder whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramify.files import move, remove, replace, replacing, share


def test_a_file_is_replaced_when_its_writing_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    replace(path, b"newer")
    assert path.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_moved_with_all_that_is_in_it_and_over_none(tmp_path: Path) -> None:
    for name in ("draft", "there"):
        (tmp_path / name / "policy").mkdir(parents=True)
        (tmp_path / name / "policy" / "weights").write_text(name)
    move(tmp_path / "draft", tmp_path / "v000001")
    assert (tmp_path / "v000001" / "policy" / "weights").read_text() == "draft"
    with pytest.raises(OSError, match="not empty"):
        move(tmp_path / "there", tmp_path / "v000001")


def test_a_folder_is_shared_whole_and_its_files_are_files_even_where_the_source_has_symbolic_links(
    tmp_path: Path,
) -> None:
    blobs, source, folder = (tmp_path / name for name in ("blobs", "snapshot", "deeper/policy"))
    for each in (blobs, source, folder.parent / ".policy.unfinished"):
        each.mkdir(parents=True)
    (folder.parent / ".policy.unfinished" / "half").touch()
    (blobs / "b1").write_text("weights")
    (source / "model.safetensors").symlink_to("../blobs/b1")  # as Hugging Face's cache has it
    share(source, folder)
    (shared,) = folder.iterdir()
    assert not shared.is_symlink()
    assert shared.samefile(blobs / "b1")
    assert list(folder.parent.iterdir()) == [folder]
    with pytest.raises(OSError, match="not empty"):
        share(source, folder)


def test_a_folder_is_removed_with_what_a_removal_cut_short_has_left(tmp_path: Path) -> None:
    folder, half = tmp_path / "learner", tmp_path / ".learner.removed"
    for made in (folder, half):
        made.mkdir()
        (made / "state").write_text("1")
    remove(folder)
    remove(folder)
    assert list(tmp_path.iterdir()) == []


def test_of_a_link_to_a_folder_the_link_alone_is_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk"
    elsewhere.mkdir()
    (tmp_path / "learner").symlink_to(elsewhere)
    remove(tmp_path / "learner")
    assert list(tmp_path.iterdir()) == [elsewhere]
