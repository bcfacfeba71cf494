"""`ramify trees` on a real log, `ramify releases` on real releases."""

import asyncio
import json

import pytest

from models import write_tiny_models
from ramify.treelog import TreeLog
from ramify.weights import Details, publish
from treelog_trees import make_tree


@pytest.fixture
def log(tmp_path):
    async def write() -> None:
        async with await TreeLog.open(f"sqlite:///{tmp_path}/trees.db") as log:
            for seed in range(3):
                await log.append(
                    make_tree(seed=seed, task="countdown", problem={"numbers": [3, 5, 7, 8], "target": 24})
                )

    asyncio.run(write())
    return tmp_path / "trees.db"


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    tiny = write_tiny_models(folder / "models", hidden=32, layers=1, heads=1)
    publish(folder / "weights", tiny.policy, tiny.value, Details(name="tiny", default_task="countdown"))
    return folder / "weights"


def test_trees_are_listed_newest_first(ramify, log):
    lines = ramify("trees", "list", "--log", log).output.splitlines()
    assert [line.split("│")[1].strip() for line in lines if "tree_" in line] == ["3", "2", "1"]


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
    assert "tiny" in ramify("releases", "list", "--root", releases).output
    assert '"default_task": "countdown"' in ramify("releases", "show", "--root", releases).output
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
