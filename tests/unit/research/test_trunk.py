"""One network from two: where its value is read, and what it learns from its teachers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ramify.tokens import closing_tokens
from ramify.weights import HEAD
from ramify_trainer.learning.value_head import read_head
from research.bootstrap.checkpoints import load_model, save_trunk
from research.bootstrap.config import NetworkConfig, TrunkConfig
from research.bootstrap.judge import ValueHead, load_judge
from research.bootstrap.policy import new_policy
from research.bootstrap.rollouts import Rollouts
from research.bootstrap.tiny_llama import TinyLlama
from research.bootstrap.tokenizer import EOS, NEWLINE, PAD, build_tokenizer
from research.bootstrap.trunk import (
    States,
    Student,
    Teachers,
    distance,
    divergence,
    train_trunk,
    trunk_steps,
    walk_loss,
)
from research.bootstrap.verification import plant_faults
from research.bootstrap.walks import Walks, answer_tokens, prompt_tokens

NETWORK = NetworkConfig(hidden=32, layers=2, heads=1, intermediate=32)
CONFIG = TrunkConfig(batch=8, epochs=4, warmup=2, check_share=0, learning_rate=3e-3)


@pytest.fixture(scope="module", name="teachers")
def _teachers() -> Teachers:
    policy = new_policy(NETWORK, torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.head.mul_(4)  # far from uniform, so that there is something to learn
    value = TinyLlama(policy.shape, 1)
    value.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        value.head.mul_(20)
    return Teachers(policy.eval(), value.eval())


@pytest.fixture(scope="module", name="texts")
def _texts() -> tuple[Tensor, Tensor]:
    """Solved problems of four numbers: prompts [6, T], answers [6, 1, T]."""
    numbers, steps = Walks(4, "train", np.random.default_rng(3)).take(6)
    return torch.from_numpy(prompt_tokens(numbers, steps[:, -1, 3])), torch.from_numpy(answer_tokens(steps))[
        :, None
    ]


@pytest.fixture(scope="module", name="data")
def _data(teachers: Teachers, texts: tuple[Tensor, Tensor]) -> list[Rollouts]:
    """Answers of a regular form to 64 problems of four numbers, half of them right."""
    numbers, steps = Walks(4, "train", np.random.default_rng(4)).take(64)
    answers = answer_tokens(steps)[:, None].repeat(2, axis=1)
    outcomes = np.tile(np.array([1.0, 0.0], np.float32), (64, 1))
    return [
        Rollouts(
            prompt_tokens(numbers, steps[:, -1, 3]).astype(np.int16), answers.astype(np.int16), outcomes, 4
        )
    ]


def test_newline_and_end_are_the_tokens_that_only_close() -> None:
    assert closing_tokens(build_tokenizer(), {EOS}) == {NEWLINE, EOS}


def test_a_value_head_judges_a_closed_line_at_the_state_before_the_token_that_closes_it(
    teachers: Teachers, texts: tuple[Tensor, Tensor]
) -> None:
    prompts, answers = texts
    head = torch.nn.Linear(NETWORK.hidden, 1)
    with torch.no_grad():
        at_prompt, at_answer = ValueHead(teachers.policy, head)(prompts, answers)
        states = States.of(teachers.policy, prompts, answers)
        expected = [head(x)[..., 0].sigmoid() for x in (states.prompt, states.answer)]
    torch.testing.assert_close(at_prompt, expected[0][:, -2])
    torch.testing.assert_close(at_answer[:, :, 5::6], expected[1][:, :, 4::6])
    for place in range(5):
        torch.testing.assert_close(at_answer[:, :, place::6], expected[1][:, :, place::6])


def test_the_student_begins_with_the_value_models_trunk_and_both_heads(
    teachers: Teachers, texts: tuple[Tensor, Tensor]
) -> None:
    network = Student(teachers, torch.Generator().manual_seed(0)).network
    vocabulary = len(teachers.policy.head)
    at_end = network(*texts)[1][..., vocabulary]
    torch.testing.assert_close(at_end, teachers.value(*texts)[1][..., 0])
    assert torch.equal(network.head[:vocabulary], teachers.policy.head)


def test_a_network_is_at_no_distance_from_itself_and_at_some_from_another(
    teachers: Teachers, texts: tuple[Tensor, Tensor]
) -> None:
    prompts, answers = texts
    ends = torch.ones(6, 1, 3, dtype=torch.bool)
    policy, value = (States.of(teacher, prompts, answers) for teacher in (teachers.policy, teachers.value))
    logits, written = policy.logits(teachers.policy.head), answers != PAD
    assert divergence(logits, logits, written).item() == pytest.approx(0, abs=1e-6)
    assert divergence(logits.roll(1, 0), logits, written).item() > 0.01
    maps = Student(teachers, torch.Generator()).maps
    assert distance(maps, value.layers_at(-1, 5, ends), value.layers_at(-1, 5, ends)).item() == 0
    assert distance(maps, policy.layers_at(-2, 4, ends), value.layers_at(-1, 5, ends)).item() > 0.1


def test_the_student_comes_near_both_teachers(
    teachers: Teachers, data: list[Rollouts], texts: tuple[Tensor, Tensor]
) -> None:
    student = Student(teachers, torch.Generator().manual_seed(0))
    before = apart(student, teachers, texts)
    losses: list[float] = []
    train_trunk(student, teachers, data, CONFIG, 0, lambda _, loss: losses.append(loss))
    assert len(losses) == trunk_steps(data, CONFIG) == 32
    after = apart(student, teachers, texts)
    assert after < before / 2


def test_on_walks_the_student_learns_what_is_known_of_them_and_the_rest_from_its_teachers(
    teachers: Teachers,
) -> None:
    rng = np.random.default_rng(5)
    checked = plant_faults(*Walks(3, "train", rng).take(32), rng, exact_from=2)
    student = Student(teachers, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = walk_loss(student, teachers, checked, CONFIG)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@torch.no_grad()
def apart(student: Student, teachers: Teachers, texts: tuple[Tensor, Tensor]) -> float:
    """The divergence from the policy."""
    prompts, answers = texts
    ours, theirs = (States.of(net, prompts, answers) for net in (student.network, teachers.policy))
    head = student.network.head[: len(teachers.policy.head)]
    return divergence(ours.logits(head), theirs.logits(teachers.policy.head), answers != PAD).item()


def test_a_saved_trunk_is_a_policy_and_a_head_that_judges_on_it(
    teachers: Teachers, texts: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    network = Student(teachers, torch.Generator().manual_seed(0)).network
    save_trunk(network, tmp_path)
    policy = load_model(tmp_path / "policy", "lm_head")
    vocabulary = len(teachers.policy.head)
    assert len(policy.head) == vocabulary
    head = read_head(tmp_path / "value" / HEAD, NETWORK.hidden)
    assert torch.equal(head.weight[0], network.head[vocabulary])
    with torch.no_grad():
        judged = load_judge(tmp_path / "policy", tmp_path / "value")(*texts)
        expected = network(*texts)[1][..., vocabulary].sigmoid()
    torch.testing.assert_close(judged[1][:, :, 4::6], expected[:, :, 4::6], atol=0.02, rtol=0)
