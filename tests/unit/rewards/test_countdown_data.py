"""Countdown problems: splits never overlap, the generator repeats, the solver is exact."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.rewards.countdown import apply, grade
from ramify.rewards.countdown_data import COUNTS, Solver, Split, problems, solve, split_of, walk


@given(st.lists(st.integers(1, 13), min_size=4, max_size=6), st.randoms())
def test_the_split_does_not_depend_on_the_order_of_the_numbers(
    numbers: list[int], rng: random.Random
) -> None:
    assert split_of(numbers) == split_of(rng.sample(numbers, len(numbers)))


def test_the_split_is_the_documented_hash() -> None:
    # int(sha256(b"3 5 7 8").hexdigest(), 16) % 10 == 7, and so on
    assert split_of([8, 7, 5, 3]) == "train"
    shares = [split_of(numbers) for numbers in itertools.combinations_with_replacement(range(1, 14), 4)]
    assert 0.07 < shares.count("test") / len(shares) < 0.13
    assert 0.07 < shares.count("dev") / len(shares) < 0.13


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_generated_problems_are_distinct_solvable_and_of_their_split(split: Split) -> None:
    found = problems(split, 60, seed=3)
    assert len({(tuple(sorted(p["numbers"])), p["target"]) for p in found}) == 60
    for i, problem in enumerate(found):
        assert split_of(problem["numbers"]) == split
        assert len(problem["numbers"]) == COUNTS[i % 3]
        assert all(1 <= n <= 13 for n in problem["numbers"])
        assert 1 <= problem["target"] <= 100
        answer = solve(problem, random.Random(i))
        assert answer is not None
        assert grade(problem, answer).outcome == 1.0


def test_the_same_arguments_give_the_same_problems_and_a_longer_list_begins_with_the_shorter() -> None:
    assert problems("dev", 12, seed=1) == problems("dev", 12, seed=1) == problems("dev", 20, seed=1)[:12]
    assert problems("dev", 12, seed=1) != problems("dev", 12, seed=2)


def test_the_counts_asked_for_are_the_counts_given() -> None:
    assert [len(p["numbers"]) for p in problems("test", 4, seed=0, counts=(5, 6))] == [5, 6, 5, 6]


def _brute_force(numbers: tuple[int, ...]) -> set[int]:
    if len(numbers) == 1:
        return set(numbers)
    found: set[int] = set()
    for i, j in itertools.combinations(range(len(numbers)), 2):
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        a, b = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
        for op in "+-*/":
            c = apply(a, op, b)
            if c is not None:
                found |= _brute_force((*rest, c))
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=4))
def test_the_solver_reaches_exactly_what_trying_everything_reaches(numbers: list[int]) -> None:
    solver = Solver(numbers)
    assert solver.values(solver.all) == _brute_force(tuple(numbers))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=2, max_size=5), st.integers(), st.integers(0, 199))
def test_a_trace_is_right_and_missing_only_where_there_is_none(
    numbers: list[int], seed: int, target: int
) -> None:
    solver = Solver(numbers)
    steps = solver.solve(target, random.Random(seed))
    if steps is None:
        assert target not in solver.values(solver.all)
    else:
        assert grade({"numbers": numbers, "target": target}, "\n".join(map(str, steps))).outcome == 1.0


def test_an_impossible_problem_has_no_answer() -> None:
    assert solve({"numbers": [1, 1, 1, 1], "target": 100}) is None


@given(st.lists(st.integers(1, 13), min_size=2, max_size=6), st.integers())
def test_a_walk_uses_every_number(numbers: list[int], seed: int) -> None:
    assert len(walk(numbers, random.Random(seed))) == len(numbers) - 1
