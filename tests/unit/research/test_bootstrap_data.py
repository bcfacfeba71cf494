"""Training data of the demo model: solved problems of the train split, exact targets, honest returns."""

import numpy as np
import pytest
import torch

from ramify.rewards.countdown import apply, grade, parse_prompt
from ramify.rewards.countdown_data import Solver, split_of
from research.bootstrap.policy import stated
from research.bootstrap.posterior import next_steps, success
from research.bootstrap.rollouts import Rollouts, legal_states, outcome_targets, roll_out
from research.bootstrap.soft_targets import soft_cross_entropy, states
from research.bootstrap.soft_targets import step_targets as soft_targets
from research.bootstrap.tokenizer import EOS, VOCABULARY, build_tokenizer, decode
from research.bootstrap.verification import plant_faults
from research.bootstrap.walks import Walks, answer_length, answer_tokens, prompt_length, prompt_tokens

TOKENIZER = build_tokenizer()


def _ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text.replace("$", ""), add_special_tokens=False)) + [EOS] * text.count("$")


@pytest.mark.parametrize("count", [4, 5, 6])
def test_every_walk_is_a_right_answer_to_a_problem_of_its_split(count: int) -> None:
    numbers, steps = Walks(count, "train", np.random.default_rng(0)).take(200)
    prompts, answers = prompt_tokens(numbers, steps[:, -1, 3]), answer_tokens(steps)
    assert prompts.shape == (200, prompt_length(count))
    assert answers.shape == (200, answer_length(count))
    in_order = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        problem = parse_prompt(decode(prompt))
        assert problem is not None
        assert 1 <= problem["target"] <= 100
        assert split_of(problem["numbers"]) == "train"
        assert grade(problem, decode(answer)).outcome == 1.0
        assert answer[-1] == EOS
        in_order += problem["numbers"] == sorted(problem["numbers"])
    assert 0.75 < in_order / 200 < 0.97


def test_so_many_prompts_as_are_wanted_state_the_target_of_another_walk() -> None:
    _, steps = Walks(4, "train", np.random.default_rng(0)).take(40)
    ends = steps[:, -1, 3]
    assert (stated(steps, 0.0) == ends).all()
    assert (stated(steps, 0.5)[20:] == ends[20:]).all()
    assert (stated(steps, 0.5)[1:20] == ends[:19]).all()


def test_walks_repeat_with_their_seed() -> None:
    one, other = (Walks(4, "dev", np.random.default_rng(5)).take(50) for _ in range(2))
    np.testing.assert_array_equal(one[1], other[1])


def test_two_and_three_numbers_stand_for_the_ends_of_problems_so_results_occur_in_them() -> None:
    numbers, _ = Walks(3, "train", np.random.default_rng(0)).take(500)
    assert numbers.max() > 13
    assert (numbers <= 13).mean() > 0.5


def test_the_steps_from_a_state_are_the_legal_ones_with_the_chances_of_a_walk() -> None:
    steps = next_steps(np.array([[8, 3, 120]]))
    chances = {
        (int(a), int(b), "+-*/"[m % 4]): float(p)
        for m, (a, b, p) in enumerate(zip(steps.a[0], steps.b[0], steps.chance[0], strict=True))
    }
    for (a, b, op), chance in chances.items():
        legal = [o for o in "+-*/" if apply(a, o, b) is not None]
        assert chance == pytest.approx(1 / 3 / len(legal) if op in legal else 0.0)


def test_success_of_two_numbers_is_the_share_of_operators_that_reach_the_target() -> None:
    # 6 and 2: 8, 4, 12, 3 are all legal
    targets = np.array([8, 4, 12, 3, 5])
    np.testing.assert_allclose(
        success(np.full((5, 2), [6, 2]), targets), [0.25, 0.25, 0.25, 0.25, 0], atol=1e-3
    )


def test_exact_targets_weigh_each_step_by_what_it_can_still_reach() -> None:
    # 2, 3 and 4 to 24: 3*2 then *4, 4*2 then *3, 4*3 then *2, each one of its pair's legal operators
    numbers, steps = np.array([[2, 3, 4]]), np.array([[[4, 2, 3, 12], [12, 2, 2, 24]]])
    first, last = soft_targets(numbers, steps, exact_from=3)
    assert first is not None
    assert last is not None
    # legal operators: three for (3, 2), four for (4, 2), three for (4, 3); then (6,4): 3, (8,3): 3, (12,2): 4
    ways = {(3, 2): 1 / 3 / 3, (4, 2): 1 / 4 / 3, (4, 3): 1 / 3 / 4}
    total = sum(ways.values())
    assert float(first.first[0, 3]) == pytest.approx(ways[3, 2] / total, rel=1e-2)
    assert float(first.first[0, 4]) == pytest.approx((ways[4, 2] + ways[4, 3]) / total, rel=1e-2)
    assert float(first.operator[0, 2]) == pytest.approx(1.0)
    assert float(first.second[0, 3]) == pytest.approx(ways[4, 3] / (ways[4, 2] + ways[4, 3]), rel=1e-2)
    assert last.operator[0].tolist() == [0, 0, 1, 0]
    assert soft_targets(numbers, steps, exact_from=2)[0] is None


def test_the_soft_loss_without_exact_targets_is_the_plain_cross_entropy() -> None:
    answers = torch.from_numpy(answer_tokens(np.array([[[4, 2, 3, 12], [12, 2, 2, 24]]])))
    logits = torch.randn(1, 12, len(VOCABULARY), generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits[0], answers[0])
    torch.testing.assert_close(soft_cross_entropy(logits, answers, [None, None]), expected)


def _rollouts(prompt: str, answers: list[str], outcomes: list[float]) -> Rollouts:
    rows = [_ids(answer) for answer in answers]
    width = max(map(len, rows))
    padded = np.array([[row + [0] * (width - len(row)) for row in rows]], dtype=np.int16)
    prompts = np.array([TOKENIZER.encode(prompt)], dtype=np.int16)
    return Rollouts(prompts, padded, np.array([outcomes], dtype=np.float32), count=3)


def test_the_target_of_a_state_is_the_mean_outcome_of_the_answers_through_it() -> None:
    rollouts = _rollouts(
        "2 3 4 to 24\n",
        [
            "4 * 3 = 12\n12 * 2 = 24$",
            "4 * 3 = 12\n12 + 2 = 14$",
            "4 * 3 = 12\n12 * 2 = 24$",
            "4 + 3 = 7\n7 * 2 = 14$",
        ],
        [1, 0, 1, 0],
    )
    at_prompt, at_answer, states = outcome_targets(rollouts)
    assert at_prompt.tolist() == [0.5]
    assert states[0].sum(axis=1).tolist() == [2, 2, 2, 2]
    np.testing.assert_allclose(at_answer[0][:, 5], [2 / 3, 2 / 3, 2 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(at_answer[0][:, 11], [1, 0, 1, 0])


def test_only_states_that_can_still_be_solved_by_the_rules_are_continued() -> None:
    prompt = "2 3 4 to 24\n"
    assert len(legal_states(_rollouts(prompt, ["4 * 3 = 12\n12 * 2 = 24$"], [1]), 1)) == 1
    for broken in ["4 * 3 = 13\n", "4 * 4 = 16\n", "4 * 3 = 12$"]:
        assert len(legal_states(_rollouts(prompt, [broken], [0]), 1)) == 0


class _Scripted:
    """A sampler that writes the same texts for every prompt."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __call__(self, prompts: np.ndarray, answers: int, max_tokens: int) -> np.ndarray:
        rows = [_ids(text)[:max_tokens] for text in self._texts]
        padded = [row + [0] * (max_tokens - len(row)) for row in rows]
        return np.array([padded] * len(prompts))


def test_a_continued_answer_is_graded_together_with_its_beginning_and_a_cut_one_is_wrong() -> None:
    begun = np.array([TOKENIZER.encode("2 3 4 to 24\n4 * 3 = 12\n")])
    texts = ["12 * 2 = 24$", "12 * 2 = 24", "12 + 2 = 14$"]
    (rollouts,) = roll_out(_Scripted(texts), begun, 3, 3, batch=4)  # type: ignore[arg-type]
    assert rollouts.outcomes.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_what_a_planted_fault_leaves_of_a_walk_is_what_the_grader_says(count: int) -> None:
    rng = np.random.default_rng(count)
    checked = plant_faults(*Walks(count, "train", rng).take(1000), rng, exact_from=2)
    assert 0.3 < checked.worth[:, -1].mean() < 0.6
    for numbers, target, steps, worth in zip(
        checked.numbers, checked.targets, checked.steps, checked.worth, strict=True
    ):
        text = "\n".join(f"{a} {'+-*/'[op]} {b} = {c}" for a, op, b, c in steps)
        if (numbers > 0).all():
            assert grade({"numbers": numbers.tolist(), "target": int(target)}, text).outcome == worth[-1]


def test_states_after_a_fault_are_known_to_be_worth_nothing() -> None:
    rng = np.random.default_rng(0)
    checked = plant_faults(*Walks(4, "train", rng).take(500), rng, exact_from=2)
    assert checked.known[:, -1].all()
    assert checked.known[:, 0].any()
    assert (checked.worth[:, :-1] == 0).all()
    later = checked.known[:, 1:] | ~checked.known[:, :-1]
    assert later.all()  # once known, known to the end


def test_whether_the_target_can_be_reached_is_what_the_solver_says() -> None:
    rng = np.random.default_rng(1)
    numbers, steps = Walks(4, "train", rng).take(300)
    checked = plant_faults(numbers, steps, rng, exact_from=2)
    assert checked.decided[:, 2:].all()
    assert not checked.decided[:, 0].any()
    for row, left in enumerate(states(checked.numbers, checked.steps)[2].tolist()):
        solver = Solver(left)
        faulty = checked.known[row, 1]
        expected = not faulty and int(checked.targets[row]) in solver.values(solver.all)
        assert checked.solvable[row, 2] == expected
