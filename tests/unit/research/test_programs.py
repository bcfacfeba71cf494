"""The task of small programs: its language, its problems and their splits, its tokens, and what the network learns."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ramify import weights
from ramify.rewards import datasets, registry
from ramify.service.refinement import filled
from research.programs import problems as drawn
from research.programs.feedback import feedback, grade
from research.programs.language import (
    INPUTS,
    MOST,
    PUBLIC,
    Line,
    behaviour,
    draw,
    every,
    read,
    results,
    run,
    text,
)
from research.programs.make import Pool, Stages, figures, main, refining, rolled_out, shares, wrong_of
from research.programs.network import Network, sample
from research.programs.problems import Problem, Split, problems, split_of
from research.programs.texts import (
    Sampled,
    bettered,
    ended,
    executed,
    judged,
    mutated,
    prompt_tokens,
    refine_tokens,
    solved,
)
from research.programs.tokens import (
    BOS,
    EOS,
    LONGEST_ANSWER,
    NEWLINE,
    POSITIONS,
    PROMPT,
    TEMPLATE,
    UNKNOWN,
    VOCABULARY,
    build_tokenizer,
    decode,
    encode,
)
from research.programs.tokens import refining as refine_prompt

SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@pytest.fixture(scope="module")
def train() -> list[Problem]:
    return problems("train", 20, 7)


def body(problem: Problem) -> str:
    return text(problem.program)


def test_a_program_is_read_as_it_is_written_and_does_what_its_lines_say() -> None:
    rng = random.Random(0)
    for lines in (1, 2, 3):
        for program in (draw(lines, rng) for _ in range(100)):
            assert read(text(program)) == program
            behaving = behaviour(program)
            if behaving is not None:
                assert results(behaving) == [run(program, x) for x in INPUTS]
    lines = ("    a = x * 3", "    b = max(a, 7)", "    return b - x")
    comments = ("0 3 6 9 12 15 18 21", "7 7 7 9 12 15 18 21", "7 6 5 6 8 10 12 14")
    bare, commented = "\n".join(lines), "\n".join(map(" # ".join, zip(lines, comments, strict=True)))
    written = read(bare)
    assert written is not None
    assert [run(written, x) for x in (1, 4)] == [6, 8]
    assert text(written) == commented
    assert read(commented) == read(f"{bare} # what a comment says counts for nothing") == written


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "return x + 1",
        "    a = x + 1",
        "    return x ** 2",
        "    return x",
        "    return x + 1\n",
        "    a = max(x, 3\n    return a + 1",
        "\n".join(["    a = x + 1"] * 8 + ["    return a + 1"]),
    ],
)
def test_what_is_not_of_the_language_is_not_read(wrong: str) -> None:
    assert read(wrong) is None


def test_a_function_that_raises_has_no_result() -> None:
    for line in (Line("", "+", "b", 1), Line("", "%", "x", 0)):
        assert run((line,), 1) is None


def test_no_two_splits_hold_functions_that_behave_alike() -> None:
    behaviours = {split: {p.results for p in problems(split, 60, 3)} for split in SPLITS}
    for split, own in behaviours.items():
        assert len(own) == 60
        assert {split_of(np.array(one, np.int8).tobytes()) for one in own} == {split}
    assert problems("dev", 5, 3) == problems("dev", 5, 3)


def test_a_problem_s_tests_rule_out_every_shorter_program(train: list[Problem]) -> None:
    for problem in train:
        own = [problem.results[x] for x in PUBLIC]
        shorter = (results(behaving) for behaving in every(len(problem.program) - 1))
        assert not any([one[x] for x in PUBLIC] == own for one in shorter)
        assert grade(problem, body(problem)) == 1
        assert max(map(abs, problem.results)) <= MOST


def test_a_split_without_so_many_problems_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "LINES", 1)
    with pytest.raises(ValueError, match="the split 'dev' has no 200 problems: "):
        problems("dev", 200, 0)


def test_problems_are_rows_of_the_task_code(train: list[Problem], tmp_path: Path) -> None:
    file = tmp_path / "dev.jsonl"
    drawn.main("dev", file, count=4)
    examples = datasets.load(str(file))
    assert [example.prompt for example in examples] == [problem.prompt for problem in problems("dev", 4, 0)]
    assert {example.task for example in examples} == {"code"}
    for example in examples:
        registry.task(example.task, example.problem)


def test_tokens_spell_every_text_and_are_the_tokenizer_s(train: list[Problem]) -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    for problem in train:
        wrong = text(mutated(problem.program, rng))
        said = feedback(problem, wrong)
        assert said is not None
        whole = refine_prompt(problem.prompt, wrong, said) + body(problem)
        assert tokenizer(whole).input_ids == [BOS, *encode(whole)]
        if UNKNOWN not in encode(whole):  # a result above 99 has no token
            assert decode(encode(whole)) == tokenizer.decode(encode(whole)) == whole
        assert len(prompt_tokens(problem)) == PROMPT
        assert len(encode(body(problem))) < LONGEST_ANSWER
        assert len(encode(whole)) + LONGEST_ANSWER < POSITIONS


def test_the_prompt_for_a_better_answer_is_the_server_s(train: list[Problem]) -> None:
    problem = train[0]
    said = "All 8 public tests pass, but tests that are not shown fail."
    prompt = filled(TEMPLATE, prompt=problem.prompt, answer=body(problem), feedback=said)
    assert refine_tokens(problem, body(problem), said) == build_tokenizer()(prompt).input_ids
    assert UNKNOWN not in refine_tokens(problem, body(problem), said)


def test_what_is_learned_is_the_program_and_a_little_the_feedback(train: list[Problem]) -> None:
    problem = train[1]
    batch = solved([problem])
    learned = batch.tokens[0][batch.weights[0] == 1]
    assert decode(learned.tolist()) == body(problem)
    assert learned[-1] == EOS
    wrong = text(mutated(problem.program, random.Random(1)))
    batch = bettered([(problem, wrong), (problem, "    return b + 1")])
    assert len(batch.tokens) == 1, "a program that raises is left out"
    little = batch.tokens[0][(batch.weights[0] > 0) & (batch.weights[0] < 1)]
    assert decode(little.tolist()) == feedback(problem, wrong)
    assert decode(batch.tokens[0][batch.weights[0] == 1].tolist()) == body(problem)


def test_of_a_program_for_something_else_what_its_lines_come_to_is_learned(train: list[Problem]) -> None:
    wrong = text(mutated(train[1].program, random.Random(1)))
    batch = executed([(train[1], wrong)])
    said = [line.partition(" #")[2] for line in wrong.split("\n")]
    learned = decode(batch.tokens[0][batch.weights[0] == 1].tolist())
    assert learned.split() == " ".join(said).split()
    assert set(batch.weights[0].tolist()) == {0.0, 1.0}


def test_the_end_of_a_whole_answer_is_judged_as_a_sample_s_is(train: list[Problem]) -> None:
    right = (*encode(body(train[1])), EOS)
    sampled = judged([Sampled(train[1], tuple(prompt_tokens(train[1])), (right,), (1.0,))])
    batch = ended(solved(train[:2]), [0.0, 1.0])
    (first, second) = (np.flatnonzero(~np.isnan(row)) for row in batch.targets)
    assert second.tolist() == np.flatnonzero(~np.isnan(sampled.targets[0]))[-1:].tolist()
    assert batch.targets[0, first].tolist() == [0.0]
    assert batch.targets[1, second].tolist() == [1.0]


def test_a_state_is_judged_before_the_token_that_closes_its_line(train: list[Problem]) -> None:
    """By the mean outcome of the answers that share what came so far."""
    problem = train[1]
    right = (*encode(body(problem)), EOS)
    first = right.index(NEWLINE) + 1
    wrong = (*right[:first], *encode("    return a + 9"), EOS)
    prompt = tuple(prompt_tokens(problem))
    batch = judged([Sampled(problem, prompt, (right, wrong), (1.0, 0.0))])
    for row, answer, outcome in zip(batch.targets, (right, wrong), (1.0, 0.0), strict=True):
        places = np.flatnonzero(~np.isnan(row))
        closing = [i + len(prompt) - 1 for i, token in enumerate(answer) if token in (NEWLINE, EOS)]
        assert places.tolist() == [len(prompt) - 2, *closing]
        assert row[places[:2]].tolist() == [0.5, 0.5], "the prompt, and the line that both begin with"
        assert row[places[-1]] == outcome
    network = Network(0)
    _, value = network.losses(batch)
    assert value.item() == pytest.approx(np.log(2), abs=1e-5)
    network.value.bias.data += 5
    assert network.losses(batch)[1].item() > 1


def test_wrong_answers_are_asked_to_be_bettered_and_right_ones_are_not(train: list[Problem]) -> None:
    problem = train[0]
    answers = tuple(
        (*encode(one), EOS) for one in (body(problem), "    return x - 9", "    return c + 1", "def")
    )
    group = Sampled(problem, tuple(prompt_tokens(problem)), answers, (1.0, 0.0, 0.0, 0.0))
    assert wrong_of(group) == [(problem, "    return x - 9")]
    ((_, prompt),) = refining(wrong_of(group))
    assert decode(prompt).startswith(problem.prompt + "    return x - 9\nPublic test 1 of 8 fails.\nCall: f(")


def test_samples_are_graded_whatever_the_length_of_their_prompts(train: list[Problem]) -> None:
    network, pool = Network(0), Pool.drawn(20, 0)
    groups, _ = rolled_out(network, pool, 4, 0)
    assert all(set(group.outcomes) == {0.0} for group in groups), "untrained"
    pairs = pool.pairs(6, shares(1))
    answered = sample(network.policy, refining(pairs), 2, 0)
    assert {group.problem for group in answered} <= {problem for problem, _ in pairs}
    assert all(len(group.answers) == 2 for group in answered)
    assert all({problem.results} for problem in pool.problems(3, (0, 0, 1)))


def test_every_program_with_a_changed_line_can_be_run() -> None:
    pool = Pool.drawn(20, 0)
    for count in [0, 1] * 30:
        pairs = pool.pairs(count, shares(1))
        assert len(pairs) == 1
        assert len(bettered(pairs).tokens) == 1


def test_a_stage_is_taken_over_by_a_run_with_the_same_options_alone(tmp_path: Path) -> None:
    made = {"pool": 30, "batch": 8, "seed": 0}
    first = Stages(tmp_path, Network(0), {**made})
    assert not first.done("weak", weak_steps=2)
    first.keep("weak")
    same = Stages(tmp_path, Network(1), {**made})
    assert same.done("weak", weak_steps=2)
    assert torch.equal(same.network.value.weight, first.network.value.weight)
    for other in ({"pool": 31}, {"batch": 9}, {"seed": 1}):
        assert not Stages(tmp_path, Network(1), {**made, **other}).done("weak", weak_steps=2)
    assert not Stages(tmp_path, Network(1), {**made}).done("weak", weak_steps=3)


def test_the_command_makes_a_release_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"pool": 30, "weak_steps": 2, "policy_steps": 2, "both_steps": 1, "sampled": 4, "batch": 8}
    before = torch.get_num_threads()
    try:
        main(tmp_path, **few, held_out=4)
        (tmp_path / "v000001").rename(tmp_path / "first")
        main(tmp_path, **few, held_out=4)
    finally:
        torch.set_num_threads(before)
    assert "both: done before" in capsys.readouterr().out
    first, second = (weights.load_release(tmp_path / name) for name in ("weak/v000001", "v000001"))
    assert first.value_head is not None
    assert second.manifest.refine_template == TEMPLATE
    assert second.manifest.metrics == {**figures_of(tmp_path)}


def figures_of(folder: Path) -> dict[str, float]:
    from safetensors.torch import load_file

    network = Network(0)
    network.load_state_dict(load_file(folder / "work/both.safetensors"))
    return figures(network, problems("dev", 4, 0), 16)
