"""`ramify trees` on a real log, `ramify releases` on real releases."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from empty_log import empty_log
from fakes_releases import write_release
from ramify.cli import app, completion
from ramify.rewards import registry
from ramify.treelog import TreeLog
from treelog_trees import make_tree

IDS = [f"tree_019a{seed:x}{'e' * 27}" for seed in range(3)]


@pytest.fixture
def log(tmp_path):
    async def write() -> None:
        async with await TreeLog.open(empty_log(tmp_path / "trees.db")) as log:
            for seed in range(3):
                await log.append(
                    make_tree(
                        id=IDS[seed],
                        seed=seed,
                        task="countdown",
                        problem={"numbers": [3, 5, 7, 8], "target": 24},
                    )
                )

    asyncio.run(write())
    return tmp_path / "trees.db"


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    write_release(root, 0.5, 0.5)
    return root


def test_trees_are_listed_newest_first(ramify, log):
    lines = ramify("trees", "list", "--log", log).output.splitlines()
    assert [line.split("│")[1].strip() for line in lines if "tree_" in line] == ["3", "2", "1"]


@pytest.mark.parametrize("columns", [60, 80, 119, 200])
def test_a_listing_names_every_tree_whole_at_any_width(ramify, log, monkeypatch, columns):
    """By its seq; by its id too, if there is room for it."""
    monkeypatch.setattr("ramify.cli.terminal.console.width", columns)
    ids = [row["id"] for row in json.loads(ramify("trees", "list", "--log", log, "--json").output)]
    lines = ramify("trees", "list", "--log", log).output.splitlines()
    assert max(map(len, lines)) <= columns
    assert [cell for line in lines if (cell := line.strip("│┃ ").split(" ")[0]) in "321" and cell] == list(
        "321"
    )
    assert all(name in "\n".join(lines) for name in ids) == (columns >= 120)


@pytest.mark.parametrize(
    "meant",
    [
        lambda tree: "2",
        lambda tree: tree,
        lambda tree: tree[:14],
        lambda tree: tree[5:20],
        lambda tree: tree.replace("tree_", "srch_")[:14],
    ],
)
def test_a_tree_is_found_by_its_seq_or_how_its_id_starts(ramify, log, meant):
    tree = json.loads(ramify("trees", "list", "--log", log, "--json").output)[1]["id"]
    assert json.loads(ramify("trees", "show", meant(tree), "--log", log, "--json").output)["id"] == tree


@pytest.mark.parametrize("name", ["4", "0", "tree_", "first", "tree_ffff", "%", "tree_%"])
def test_a_name_of_no_tree_is_refused_with_where_to_look(ramify, log, name):
    result = ramify("trees", "show", name, "--log", log)
    assert result.exit_code in (1, 2)
    assert "trees list" in result.output


def test_a_start_of_several_ids_is_answered_with_them(ramify, log):
    result = ramify("trees", "show", "tree_019a", "--log", log)
    assert result.exit_code == 1
    assert all(name in result.output for name in IDS)


@pytest.mark.parametrize(
    ("complete", "typed", "offered"),
    [
        (completion.algorithms, "d", ["dvts", "dfs"]),
        (completion.methods, "greedy,best_of_n_", ["greedy,best_of_n_vote", "greedy,best_of_n_cool"]),
        (completion.tasks, "m", ["math"]),
    ],
)
def test_the_shell_completes_algorithms_methods_and_tasks(complete, typed, offered):
    assert complete(typed) == offered


def completed(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what bash is offered for the last of the words."""
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    found = CliRunner().invoke(app, [], prog_name="ramify", env={"_RAMIFY_COMPLETE": "complete_bash"})
    return found.output.split()


def test_the_shell_completes_trees_by_seq_and_id(log, monkeypatch):
    assert completed(f"ramify trees show --log {log} ", monkeypatch) == ["last", "3", "2", "1"]
    ids = completed(f"ramify trees show --log {log} tree_", monkeypatch)
    assert len(ids) == 3
    assert completed(f"ramify trees dot --log {log} {ids[0]}", monkeypatch) == ids[:1]


def test_a_log_that_is_not_there_completes_to_nothing_and_says_nothing(tmp_path, monkeypatch):
    assert completed(f"ramify trees show --log {tmp_path}/none.db 1", monkeypatch) == []


def test_tasks_of_which_one_cannot_be_imported_complete_to_nothing(tmp_path, monkeypatch):
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ramify.tasks]\nabsent = outside_that_is_not:Sorted\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._verifiers.cache_clear()
    assert completion.tasks("m") == []


def test_releases_are_completed_and_come_as_json(ramify, releases, monkeypatch):
    assert completed(f"ramify releases show --root {releases} v0", monkeypatch) == ["v000001"]
    (listed,) = json.loads(ramify("releases", "list", "--root", releases, "--json").output)
    assert (listed["id"], listed["name"]) == ("v000001", "letters")
    assert json.loads(ramify("releases", "show", "--root", releases, "--json").output)["files"]


def test_a_verified_log_comes_as_json(ramify, log):
    assert json.loads(ramify("trees", "verify", "--log", log, "--json").output)["trees"] == 3


def test_a_tree_is_drawn_with_its_answer_judged(ramify, log):
    shown = ramify("trees", "show", "last", "--log", log).output
    assert "3 5 7 8 to 24" in shown
    assert "✗" in shown
    assert "★" in shown


def test_a_tree_comes_as_json_and_as_dot(ramify, log):
    tree = json.loads(ramify("trees", "show", "last", "--log", log, "--json").output)
    assert tree["seed"] == 2
    assert ramify("trees", "dot", tree["id"], "--log", log).output.startswith("digraph")
    assert ramify("trees", "dot", tree["id"].replace("tree_", "srch_"), "--log", log).exit_code == 0


def test_an_unknown_tree_is_said_to_be_unknown(ramify, log):
    result = ramify("trees", "show", "tree_" + "0" * 32, "--log", log)
    assert result.exit_code == 1
    assert "no tree" in result.output


def test_a_sound_log_verifies(ramify, log):
    assert "3 trees" in ramify("trees", "verify", "--log", log).output


@pytest.mark.parametrize("name", ["trees.ndjson", "trees.parquet"])
def test_the_log_is_exported_after_a_cursor(ramify, log, tmp_path, name):
    result = ramify("trees", "export", tmp_path / name, "--log", log, "--after", 1)
    assert result.exit_code == 0, result.output
    assert "2 records" in result.output
    assert (tmp_path / name).stat().st_size > 100


def test_releases_are_listed_shown_and_verified(ramify, releases):
    assert "letters" in ramify("releases", "list", "--root", releases).output
    assert '"name": "letters"' in ramify("releases", "show", "--root", releases).output
    assert "✓ v000001" in ramify("releases", "verify", "--root", releases).output


def test_a_changed_file_is_noticed(ramify, releases):
    weights = releases / "v000001" / "policy" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        result = ramify("releases", "verify", "--root", releases)
    finally:
        weights.write_bytes(content)
    assert result.exit_code == 1
    assert "sha256" in result.output
