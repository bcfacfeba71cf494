"""Objects of other packages: what can be loaded, and what an error says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ramify.extensions import BadExtension, announced, check_name, load


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution `outside` with the package of that name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "outside.py").write_text("class Sorted:\n    class Inner: ...\n")
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ramify.tasks]\nsorted = outside:Sorted\nabsent = outside_that_is_not:Sorted\n"
    )
    monkeypatch.delitem(sys.modules, "outside", raising=False)
    return tmp_path


@pytest.mark.usefixtures("package")
def test_an_object_is_loaded_by_its_path() -> None:
    assert load("outside:Sorted").__name__ == "Sorted"
    assert load("outside:Sorted.Inner").__name__ == "Inner"


@pytest.mark.usefixtures("package")
def test_entry_points_are_found_by_group_without_importing_them() -> None:
    ours = [(name, path) for name, path in announced("ramify.tasks") if path.startswith("outside")]
    assert ours == [("absent", "outside_that_is_not:Sorted"), ("sorted", "outside:Sorted")]
    assert "outside" not in sys.modules


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("outside.Sorted", "no path of an object, such as 'package.module:Name'"),
        ("outside:Sorted()", "no path of an object"),
        ("../outside:Sorted", "no path of an object"),
        (":Sorted", "no path of an object"),
        ("outside:Unsorted", "outside has no 'Unsorted'"),
        ("outside_that_is_not:Sorted", "cannot be imported: ModuleNotFoundError: No module named"),
        ("broken:Sorted", "broken:Sorted cannot be imported: SyntaxError"),
    ],
)
def test_an_object_that_cannot_be_loaded_is_named_with_the_reason(
    package: Path, path: str, message: str
) -> None:
    (package / "broken.py").write_text("def")
    with pytest.raises(BadExtension, match=message) as refused:
        load(path)
    assert path in str(refused.value)


@pytest.mark.parametrize("name", ["", "Sorted", "9sorted", "a.b:c", "s" * 33, "sorted\n"])
def test_a_name_is_short_and_plain(name: str) -> None:
    with pytest.raises(BadExtension, match="lower-case letters"):
        check_name(name)


def test_a_plain_name_is_taken() -> None:
    check_name("sorted_2")
    check_name("sorted-list")
