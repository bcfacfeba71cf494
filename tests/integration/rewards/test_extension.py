"""examples/extension, installed: its task, data set, algorithm and scorer are used as ours are, by name."""

from __future__ import annotations

import sys
import time
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.api.world import FakeEngines, FakeTokenizer, a_world
from fakes import FakePolicy, encode
from ramify.api.server import REFUSED, serve
from ramify.engines import Engines
from ramify.evaluation.backends import UNLIMITED, LocalBackend
from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import load_methods, override
from ramify.evaluation.rows import Row
from ramify.evaluation.runner import run, schedule
from ramify.extensions import BadExtension
from ramify.rewards import registry
from ramify.rewards.datasets import load
from ramify.rewards.errors import BadDataset, BadProblem
from ramify.rewards.grading import close_pools
from ramify.rewards.verifier import Verifier
from ramify.search.algorithms import ALGORITHMS
from ramify.search.codec import tree_to_dict
from ramify.search.records import Action
from ramify.search.tree import Completion
from ramify.service.search_preparation import SearchPreparer
from ramify.service.serving import engine_config, install, scorer_factory
from ramify.settings import Settings
from ramify_trainer.learning.labels import OutcomeWeights
from ramify_trainer.loop.puller import TrainingRecord
from ramify_trainer.loop.round_trees import freeze, label_trees
from search_worlds import new_tree

pytestmark = pytest.mark.anyio


class Wordy(Verifier):
    """A task whose words for a better answer leave out what is wrong with the last one."""

    refine_template = "Try again."


EXAMPLE = Path(__file__).parents[3] / "examples" / "extension"
SETTINGS = Settings.model_validate({"extensions": {"scorer": "ascending"}})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the example on the path as an installer does, with metadata that has its entry points."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "ramify_sorted-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {path}\n" for name, path in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))
    for folder in (EXAMPLE, info.parent):
        monkeypatch.syspath_prepend(folder)
    registry._verifiers.cache_clear()
    before = dict(ALGORITHMS)
    yield info
    registry._verifiers.cache_clear()
    ALGORITHMS.clear()
    ALGORITHMS.update(before)
    for module in [name for name in sys.modules if name.partition(".")[0] == "ramify_sorted"]:
        del sys.modules[module]


@pytest.fixture
async def extended(installed: Path) -> AsyncIterator[FakeEngines]:
    """Engines that guess at an order, in a process that has registered the example."""
    install(SETTINGS)
    engines = FakeEngines(policy=FakePolicy(guess, prompt=""))
    engines.serving = replace(engines.serving, action=Action("step", (" ",), 16), max_tokens=32)
    make: Any = scorer_factory(SETTINGS)
    engines.scorer = make(engines.tokenizer, None)
    yield engines
    await close_pools()


def guess(text: str) -> Mapping[str, float]:
    """Any of the numbers that were not yet said."""
    asked, _, said = text.partition("\n")
    left = Counter(asked.removeprefix("Sort: ").split()) - Counter(said.split())
    return {f"{number} ": count / left.total() for number, count in left.items()} or {"": 1.0}


@pytest.mark.usefixtures("installed")
async def test_a_search_uses_task_algorithm_and_scorer_by_name(extended: FakeEngines, tmp_path: Path) -> None:
    task = {"name": "sorted", "problem": {"numbers": [30, 4, 12]}}
    search = {"algorithm": "epsilon_greedy", "width": 16, "budget": {"simulations": 100}}
    async with a_world(tmp_path, extended) as world:
        reply = await world.search(
            prompt="Sort: 30 4 12\n", task=task, search=search, seed=1, include_tree=True
        )
    assert reply.status_code == 200, reply.text
    tree = reply.json()["tree_document"]
    assert tree["params"]["algorithm"] == "epsilon_greedy"
    assert {node["value"] for node in tree["nodes"]} >= {0.5, 1.0}
    assert reply.json()["answer"]["final"] == "4 12 30"
    assert tree["verdict"]["outcome"] == 1.0


async def test_a_problem_beyond_its_bounds_and_a_path_in_a_request_are_refused(
    extended: FakeEngines, tmp_path: Path
) -> None:
    async with a_world(tmp_path, extended) as world:
        for task, param in (
            ({"name": "sorted", "problem": {"numbers": [3, 1000]}}, "task.problem.numbers.1"),
            ({"name": "ramify_sorted.tasks:Sorted", "problem": {"numbers": [1]}}, "task.name"),
        ):
            reply = await world.search(task=task)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_an_evaluation_runs_over_its_data_set(extended: FakeEngines) -> None:
    asked = load("sorted:test?size=2", 4, seed=0)
    engines: Any = extended
    preparer = SearchPreparer(engines, UNLIMITED, time.time)
    rows: list[Row] = []
    methods = override(load_methods(None, ["epsilon_greedy"]), ["search.width=16"])
    work = schedule(asked, methods, [Budget("tokens", 1000)], 2)
    backend = LocalBackend(engines, preparer)
    await run(backend, work, seed=0, concurrency=2, observe=rows.extend)
    assert [(row.group, row.correct) for row in rows] == [("2 numbers", True)] * 4


class StillEngine:
    """A policy's engine that nobody asks."""

    launch = SimpleNamespace(role="policy")

    def attach(self, died: Callable[[str], None]) -> None:
        pass


@pytest.mark.usefixtures("installed")
async def test_engines_without_a_value_model_judge_by_its_scorer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 128}')
    config = engine_config(SETTINGS.model_copy(update={"policy": str(tmp_path)}))
    parts: Any = ([StillEngine()], FakeTokenizer(), {}, str(tmp_path))
    engines = Engines(config, *parts)
    assert engines.serving.judged
    scores = await engines.scorer.score([encode("Sort: 2 1\n1 2"), encode("Sort: 2 1\n2 1")])
    assert [score.value for score in scores] == [1.0, 0.0]


@pytest.mark.usefixtures("extended")
async def test_the_trainer_grades_by_it(tmp_path: Path) -> None:
    tree = new_tree()
    tree.task, tree.problem = "sorted", {"numbers": [2, 1]}
    for i, text in enumerate(("1 2", "2 1"), start=1):
        tree.add(tree.root, tokens=(i,), logprobs=(-0.5,), text=text, terminal="eos", release="v000001")
        tree.completions.append(Completion(i, i, i))

    async def records() -> AsyncIterator[TrainingRecord]:
        yield TrainingRecord(1, tree.id, tree_to_dict(tree))

    await freeze(records(), tmp_path / "trees.ndjson")
    (learned,) = await label_trees(tmp_path / "trees.ndjson", OutcomeWeights(), lambda _: 0)
    assert learned.outcomes == {1: 1.0, 2: 0.0}


@pytest.mark.usefixtures("installed")
def test_its_data_set_is_the_same_again_and_its_splits_share_no_problem() -> None:
    examples = load("sorted:test", 50, seed=1)
    assert examples == load("sorted:test", 50, seed=1)
    assert {(example.task, example.group) for example in examples} == {("sorted", "4 numbers")}
    assert not {e.id for e in examples} & {e.id for e in load("sorted:train", 50, seed=1)}
    with pytest.raises(BadDataset, match="unknown split 'valid'; there are train, dev, test"):
        load("sorted:valid", 5)
    with pytest.raises(BadDataset, match=r"sorted:test\?size=40, problem\.numbers: must have at most 32"):
        load("sorted:test?size=40", 5)


@pytest.mark.usefixtures("installed")
def test_without_entry_points_settings_name_it(installed: Path) -> None:
    (installed / "entry_points.txt").unlink()
    path = "ramify_sorted.tasks:Sorted"
    assert "sorted" not in registry.names()
    chosen = Settings.model_validate({"task": path, "extensions": {"tasks": {"in_order": path}}})
    assert install(chosen).task == "sorted"
    assert install(chosen).task == "sorted"
    assert {"sorted", "in_order"} <= set(registry.gradable())
    with pytest.raises(BadProblem, match=r"numbers: is missing"):
        registry.check("in_order", {})


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        (
            {"tasks": {"other": "ramify_absent:Task"}},
            "task 'other': ramify_absent:Task cannot be imported: Mod",
        ),
        ({"tasks": {"other": "ramify_sorted.tasks:Absent"}}, "ramify_sorted.tasks has no 'Absent'"),
        (
            {"tasks": {"other": "ramify_sorted.scorers:Ascending"}},
            "not a subclass of ramify.rewards.Verifier",
        ),
        ({"tasks": {"math": "ramify_sorted.tasks:Sorted"}}, "is taken by ramify.rewards.tasks:Math"),
        ({"tasks": {"other": f"{__name__}:Wordy"}}, "refine_template lacks {feedback}"),
        ({"algorithms": {"mcts": "ramify_sorted.algorithms:EpsilonGreedy"}}, "algorithms: .*'mcts'"),
        ({"algorithms": {"other": "ramify_sorted.tasks:Sorted"}}, "algorithms: .*no subclass"),
        ({"algorithms": {"other": "ramify_absent:Algorithm"}}, "algorithms: No module named"),
        ({"scorer": "descending"}, "scorer 'descending': no installed package has it; there are ascending"),
        ({"scorer": "ramify_sorted.tasks:Sorted"}, "has no method `async def score"),
        ({"scorer": "ramify_sorted.algorithms:EPSILON"}, "not a class or a function"),
    ],
)
def test_what_cannot_be_used_is_said_at_start(extensions: dict[str, Any], message: str) -> None:
    settings = Settings.model_validate({"extensions": extensions})
    with pytest.raises(BadExtension, match=message):
        scorer_factory(install(settings))


def test_a_server_with_a_broken_extension_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    absent = {"tasks": {"other": "ramify_absent:Task"}}
    assert serve(Settings.model_validate({"extensions": absent})) == REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ramify serve: task 'other': ramify_absent:Task cannot be imported")
