"""Make batches of token ids that the network learns from: solved problems, answers bettered, and graded samples.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from research.programs.feedback import feedback
from research.programs.language import CONSTANTS, OPERATORS, Line, Program, behaviour, text
from research.programs.problems import Problem
from research.programs.tokens import BOS, COMMENT, EOS, NEWLINE, PAD, encode, refining

ON_FEEDBACK = 0.3
"""Weight of the tokens of feedback, which teach what a program does, beside 1 of an answer's."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A batch, padded on the right."""

    tokens: NDArray[np.int64]
    """[B, T]."""
    weights: NDArray[np.float32]
    """How much the policy's loss counts each token, [B, T]."""
    targets: NDArray[np.float32]
    """The value of the state after each token, [B, T]; NaN: it is not judged."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Answers of the policy to one prompt, graded."""

    problem: Problem
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    """Up to and with the end token; one that was cut short has none."""
    outcomes: tuple[float, ...]


def prompt_tokens(problem: Problem) -> list[int]:
    """Return the prompt of a problem."""
    return [BOS, *encode(problem.prompt)]


def refine_tokens(problem: Problem, body: str, said: str) -> list[int]:
    """Return the prompt that asks for a better answer than `body`."""
    return [BOS, *encode(refining(problem.prompt, body, said))]


def solved(problems: Sequence[Problem]) -> Texts:
    """Return problems with their own programs."""
    return _batch([_answered(prompt_tokens(problem), problem) for problem in problems])


def executed(pairs: Sequence[tuple[Problem, str]]) -> Texts:
    """Return problems with programs that are none of theirs, of which what each line comes to is learned alone.

    Of solved problems alone a network learns to say of its last line that it comes to what is asked.
    """
    rows = []
    for problem, body in pairs:
        prompt, answer = prompt_tokens(problem), [*encode(body), EOS]
        commented, weights = False, []
        for token in answer:
            weights.append(float(commented))
            commented = token == COMMENT or (commented and token != NEWLINE)
        rows.append(([*prompt, *answer], np.array([0.0] * len(prompt) + weights, np.float32)))
    return _batch(rows)


def bettered(pairs: Sequence[tuple[Problem, str]]) -> Texts:
    """Return problems with a wrong answer, the feedback on it, and their own programs.

    Pairs whose answer cannot be run are left out.
    """
    rows = []
    for problem, body in pairs:
        said = feedback(problem, body)
        if said is None:
            continue
        tokens, weights = _answered(refine_tokens(problem, body, said), problem)
        start = 1 + len(encode(f"{problem.prompt}{body}\n"))
        weights[start : start + len(encode(said))] = ON_FEEDBACK
        rows.append((tokens, weights))
    return _batch(rows)


def ended(texts: Texts, outcomes: Sequence[float]) -> Texts:
    """Return texts of whole answers with the value of each row's last state: the outcome of its answer.

    Programs that are drawn give more of them than samples do, and nearer misses."""
    targets = texts.targets.copy()
    ends = (texts.tokens == EOS).argmax(axis=1)
    targets[np.arange(len(ends)), ends - 1] = outcomes
    return replace(texts, targets=targets)


def judged(groups: Sequence[Sampled]) -> Texts:
    """Return samples with the value of each state at which a search asks for one: the mean outcome of the group's
    answers that share what came so far (the Monte Carlo return, TD(λ) with λ = 1)."""
    rows, targets = [], []
    for group in groups:
        for answer in group.answers:
            tokens = [*group.prompt, *answer]
            rows.append((tokens, np.zeros(len(tokens), np.float32)))
            targets.append(_returns(group, answer))
    batch = _batch(rows)
    for row, wanted in zip(batch.targets, targets, strict=True):
        row[list(wanted)] = list(wanted.values())
    return batch


def _returns(group: Sampled, answer: tuple[int, ...]) -> dict[int, float]:
    """Return the value of each state that is judged, by its place: the last token before one that closes a line."""
    start = len(group.prompt)
    wanted = {start - 2: float(np.mean(group.outcomes))}
    for i, token in enumerate(answer):
        if token in (NEWLINE, EOS):
            alike = [other[: i + 1] == answer[: i + 1] for other in group.answers]
            wanted[start + i - 1] = float(np.mean(np.array(group.outcomes)[alike]))
    return wanted


def mutated(program: Program, rng: random.Random) -> Program:
    """Return a program with one line changed, as a wrong answer to begin with; no value of it is too large."""
    while behaviour(changed := _mutated(program, rng)) is None:
        pass
    return changed


def _mutated(program: Program, rng: random.Random) -> Program:
    at = rng.randrange(len(program))
    line = program[at]
    others = [operator for operator in OPERATORS if operator != line.operator]
    if isinstance(line.right, str):
        changed: Line = replace(line, operator=rng.choice([o for o in others if o not in ("//", "%")]))
    elif rng.random() < 0.5:
        changed = replace(line, right=rng.choice([n for n in CONSTANTS[line.operator] if n != line.right]))
    else:
        operator = rng.choice(others)
        changed = replace(line, operator=operator, right=rng.choice(CONSTANTS[operator]))
    return (*program[:at], changed, *program[at + 1 :])


def _answered(prompt: list[int], problem: Problem) -> tuple[list[int], NDArray[np.float32]]:
    answer = [*encode(text(problem.program)), EOS]
    weights = np.zeros(len(prompt) + len(answer), np.float32)
    weights[len(prompt) :] = 1
    return [*prompt, *answer], weights


def _batch(rows: Sequence[tuple[list[int], NDArray[np.float32]]]) -> Texts:
    shape = (len(rows), max(len(tokens) for tokens, _ in rows))
    batch = Texts(np.full(shape, PAD), np.zeros(shape, np.float32), np.full(shape, np.nan, np.float32))
    for i, (tokens, weights) in enumerate(rows):
        batch.tokens[i, : len(tokens)] = tokens
        batch.weights[i, : len(tokens)] = weights
    return batch
