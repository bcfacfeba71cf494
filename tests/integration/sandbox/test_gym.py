"""Every data set of reasoning-gym in its sandbox: problems are made there, and answers graded."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import gym, registry
from ramify.rewards.datasets import load
from ramify.rewards.errors import BadDataset, BadTask, CallFailed
from ramify.rewards.grading import functions_path
from ramify.rewards.gym import NAMES, ReasoningGym
from ramify.rewards.pool import Pool, PoolLimits
from ramify.sandbox import Probe, Program, Sandbox, find
from ramify.search.records import Verdict

pytestmark = pytest.mark.timeout(600)

WITHOUT_REFERENCE = {
    "boxnet": "any plan that moves the boxes home is right, and none comes with the problem",
    "rush_hour": "any moves that free the car are right, and none come with the problem",
}
TAKES_ANYTHING = {"game_of_life_halting": "its scorer compares whether texts are empty, not what they say"}
ELSEWHERE: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "graph_color": lambda metadata: json.dumps(dict(metadata["possible_answer"]["$dict"])),
    "propositional_logic": lambda metadata: str(metadata["example_answer"]),
    "rubiks_cube": lambda metadata: str(metadata["example_correct_answer"]),
}
"""How a right answer is read of the records that have no `answer`, by data set."""
MIXTURE = {"datasets": [{"name": "gcd"}, {"name": "lcm", "weight": 2, "config": {"level": 1}}]}
SEED = gym.first_seed("test", 3, 1)
WRONG = "none of these 987654321"


@pytest.fixture(scope="module")
def maker() -> Iterator[Sandbox]:
    with gym.library() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def grade() -> Iterator[Callable[..., Verdict]]:
    """Grade a text in a worker, as a search does: (text, problem) → verdict."""
    pool = Pool(functions_path(ReasoningGym), PoolLimits(workers=1))

    def grade(text: str, **problem: Any) -> Verdict:
        return asyncio.run(registry.task("reasoning-gym", problem, pool).grade(text))

    yield grade
    asyncio.run(pool.close())


def made(maker: Sandbox, name: str, **options: Any) -> dict[str, Any]:
    """Return the record of a problem."""
    options = MIXTURE if name == "composite" else options
    (item,) = gym.items(maker, name, options, SEED, 1)
    assert item.pop("question")
    return {"dataset": name, "options": options, "entry": item}


@pytest.mark.parametrize("name", NAMES)
def test_each_data_set_loads_and_grades_its_own_answer_as_right_and_another_as_wrong(
    name: str, maker: Sandbox, grade: Callable[..., Verdict]
) -> None:
    problem = made(maker, name)
    entry = problem["entry"]
    right = ELSEWHERE[name](entry["metadata"]) if name in ELSEWHERE else entry["answer"]
    if name in WITHOUT_REFERENCE:
        assert right is None
    else:
        assert grade(f"<think>{WRONG}</think> <answer>\n{right}\n</answer>", **problem).outcome == 1
    assert grade(WRONG, **problem).outcome == (name in TAKES_ANYTHING)


def test_an_answer_on_which_the_scorer_uses_up_its_time_is_wrong(
    maker: Sandbox, grade: Callable[..., Verdict]
) -> None:
    verdict = grade("<answer>9**9**9**9</answer>", **made(maker, "countdown"))
    assert (verdict.outcome, verdict.reason.partition(":")[0]) == (0, "the scorer cannot read the answer")


def test_the_names_are_all_that_the_library_has(maker: Sandbox) -> None:
    with pytest.raises(ValueError, match="there is no data set 'nope'") as refused:
        gym.items(maker, "composite", {"datasets": [{"name": "nope"}]}, SEED, 1)
    assert (str(refused.value).partition("there are ")[2]).split(", ") == [
        name for name in NAMES if name != "composite"
    ]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gcd", {"digits": 3}, "gcd has no option 'digits'; it has level, min_numbers, max_numbers"),
        ("gcd", {"seed": 3}, "gcd has no option 'seed'"),
        ("gcd", {"min_numbers": "three"}, "min_numbers must be of the kind of 2"),
        ("gcd", {"min_numbers": True}, "min_numbers must be of the kind of 2"),
        ("gcd", {"min_numbers": 1}, "min_numbers must be at least 2"),
        ("gcd", {"level": 9}, "level must be from 0 to 3"),
        ("acre", {"level": 1}, "acre has no curriculum"),
        ("composite", {"datasets": [{"name": "gcd", "config": {"x": 1}}]}, "gcd has no option 'x'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(
    name: str, options: dict[str, Any], said: str, maker: Sandbox
) -> None:
    with pytest.raises(ValueError, match=said):
        gym.items(maker, name, options, SEED, 1)


def test_a_level_is_that_of_the_curriculum(maker: Sandbox, grade: Callable[..., Verdict]) -> None:
    easy, hard = (made(maker, "chain_sum", level=level) for level in (0, 9))
    ranges = [problem["entry"]["metadata"]["difficulty"]["num_digits"]["$tuple"] for problem in (easy, hard)]
    assert ranges[0][1] < ranges[1][1]
    assert grade(hard["entry"]["answer"], **hard).outcome == 1


def test_22_a_score_below_1_is_not_right_and_its_share_can_be_had(
    maker: Sandbox, grade: Callable[..., Verdict]
) -> None:
    problem = made(maker, "countdown")
    assert grade("1 + 1", **problem) == Verdict(0.0, "the scorer gave 0.05 of 1")
    assert grade("1 + 1", **problem, scoring="share").outcome == 0.05


def test_a_scorer_that_raises_on_an_answer_finds_it_wrong_and_one_that_raises_on_its_problem_nothing(
    maker: Sandbox, grade: Callable[..., Verdict]
) -> None:
    problem = made(maker, "prime_factorization")
    verdict = grade("seven", **problem)
    assert verdict.outcome == 0
    assert "the scorer cannot read the answer: ValueError" in verdict.reason
    broken = {**problem, "entry": {"answer": "no number", "metadata": {}}}
    with pytest.raises(CallFailed, match=r"the scorer did not grade the answer: ValueError"):
        grade("7", **broken)


@pytest.mark.parametrize(
    "name",
    [
        *("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication"),
        *("puzzle24", "simple_integration", "spiral_matrix", "string_insertion"),
    ],
)
def test_an_answer_that_is_code_is_not_run(
    name: str, maker: Sandbox, grade: Callable[..., Verdict], tmp_path: Path
) -> None:
    """These nine scorers evaluate the answer: it can neither do anything nor hand back a score of its own."""
    problem = made(maker, name)
    folder = tmp_path / "made"
    tmp_path.chmod(0o777)
    for attack in (
        f"__import__('os').mkdir({str(folder)!r})",
        "eval(chr(95)+chr(95)+chr(105))",
        "[__import__('os').write(3, b'{\"$tuple\": [1.0, \"\"]}'), __import__('os')._exit(0)]",
    ):
        assert grade(f"<answer>{attack}</answer>", **problem).outcome == 0
    assert not folder.exists()


def test_without_our_care_the_walls_of_the_sandbox_stand(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    tmp_path.chmod(0o777)
    program = Program(
        code="def read(text):\n return str(sympy.parse_expr(text))",
        function="read",
        cpu=10,
        memory=gym.MEMORY,
    )
    with Sandbox(find(), preload="import sympy", folders=gym._folders()) as sandbox:
        assert sandbox.run(program, ["2+3"], call=True, wall=60).out == '"5"'
        ended = sandbox.run(program, [f"__import__('os').mkdir({str(folder)!r})"], call=True, wall=60)
    assert ended.status == "error"
    assert not folder.exists()


def test_a_data_set_is_the_same_for_one_seed_in_any_sandbox(maker: Sandbox) -> None:
    """Also if the library goes through sets, whose order Python draws for each process."""
    examples = load("reasoning-gym:ransom_note?size=2&level=1&system=direct&seed=1")
    seed = gym.first_seed("test", 1, 2)
    for number, (example, item) in enumerate(
        zip(examples, gym.items(maker, "ransom_note", {"level": 1}, seed, 2), strict=True), seed
    ):
        system, question = example.messages
        assert (system.role, question.role, question.content) == ("system", "user", item["question"])
        assert example.problem["options"] == {"level": 1}
        assert example.id == f"reasoning-gym:ransom_note:{number}"


def test_no_two_splits_share_a_seed() -> None:
    for seed in range(100):
        firsts = [gym.first_seed(split, seed, gym.MAX_SIZE) for split in gym.SPLITS]
        lasts = [first + gym.MAX_SIZE for first in firsts]
        assert [first // gym.SEEDS for first in firsts] == [last // gym.SEEDS for last in lasts] == [0, 1, 2]
        assert lasts[-1] < 1 << 32


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nope", "unknown split 'nope'; there are ab, acre"),
        ("gcd?split=all", "split must be one of train, dev, test, not 'all'"),
        ("gcd?size=0", "size must be a whole number from 1 to 1000000, not '0'"),
        ("gcd?seed=x", "seed must be a whole number"),
        ("gcd?system=poem", "system must be one of none, direct, think"),
    ],
)
def test_a_name_that_cannot_be_is_refused(spec: str, said: str) -> None:
    with pytest.raises(BadDataset, match=said):
        load(f"reasoning-gym:{spec}")


def test_without_the_library_it_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"dataset": "gcd", "entry": {"answer": "1", "metadata": {}}}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(gym, "probe", Probe(gym.trial))
    for use in (lambda: registry.task("reasoning-gym", problem), lambda: load("reasoning-gym:gcd")):
        with pytest.raises((BadTask, BadDataset), match=r"pip install reasoning-gym==0\.1\.25"):
            use()
