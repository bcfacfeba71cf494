"""Right answers of the rounds before, to be imitated again: bounded, distinct, and on disk with the round they came of.

A round keeps its right answers as `right.ndjson` in its folder, written before it is trained: a function of the trees
that it froze, so that a training that is done again has the same. What is known of an answer now comes first: one that
is among this round's own answers counts by its outcome there alone, right or not.

The log is not asked again, so an answer of a tree that was deleted since is still imitated, for as many rounds as are
configured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ramify.files import replacing
from ramify.search.params import search_params
from ramify.search.records import Sampling
from ramify.search.tree import Tree
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.labels import LabelledTree
from ramify_trainer.learning.prompts import by_prompt
from ramify_trainer.learning.targets import right_answers
from ramify_trainer.loop.state import round_folder

__all__ = ["keep_right", "replayed"]

NAME = "right.ndjson"


@dataclass(frozen=True, slots=True)
class RightAnswer:
    """An answer, and what it was drawn after."""

    prompt: tuple[int, ...]
    """Token ids that it follows."""
    tokens: tuple[int, ...]
    """Its own."""
    outcome: float
    temperature: float
    problem: tuple[int, ...] | None = None
    """The problem's prompt, if its own asks for an answer better than another."""

    @property
    def sequence(self) -> tuple[int, ...]:
        return self.prompt + self.tokens


def keep_right(trees: Sequence[LabelledTree], least: float, folder: Path) -> None:
    """Write the distinct right answers of a round into its folder. least: their least outcome."""
    with replacing(folder / NAME) as file:
        for answer in _right(by_prompt(trees), least):
            file.write(json.dumps(asdict(answer)).encode() + b"\n")


def _right(trees: Sequence[LabelledTree], least: float) -> Iterator[RightAnswer]:
    for labelled, ends in zip(trees, right_answers(trees, least), strict=True):
        tree = labelled.tree
        for leaf in ends:
            yield RightAnswer(
                tree.prompt_of(leaf),
                tree.answer_tokens(leaf),
                labelled.outcomes[leaf.id],
                tree.sampling.temperature,
                labelled.problem,
            )


def replayed(
    run: Path, round_: int, config: LearningConfig, trees: Sequence[LabelledTree]
) -> list[LabelledTree]:
    """Return the right answers of the `replay_rounds` before a round as trees to imitate, one for each prompt: at most
    `replay_answers`, the newest, and none that is among the answers of the round's own `trees`."""
    drawn = {
        one.tree.sequence(one.tree.nodes[i])
        for one in by_prompt(trees)
        for i in one.outcomes.keys() - one.learned
    }
    chosen: dict[tuple[int, ...], RightAnswer] = {}
    for before in range(round_ - 1, max(0, round_ - 1 - config.replay_rounds), -1):
        for answer in _read(run / round_folder(before) / NAME):
            if len(chosen) < config.replay_answers and answer.sequence not in drawn:
                chosen.setdefault(answer.sequence, answer)
    return _as_trees(list(chosen.values()))


def _read(path: Path) -> Iterator[RightAnswer]:
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for kept in map(json.loads, lines):
                problem = None if kept["problem"] is None else tuple(kept["problem"])
                places = {name: tuple(kept[name]) for name in ("prompt", "tokens")}
                yield RightAnswer(**{**kept, **places, "problem": problem})


def _as_trees(answers: Sequence[RightAnswer]) -> list[LabelledTree]:
    grown: dict[tuple[object, ...], tuple[Tree, dict[int, float], RightAnswer]] = {}
    for answer in answers:
        key = answer.prompt, answer.problem, answer.temperature
        if key not in grown:
            sampling = Sampling(temperature=answer.temperature)
            tree = Tree(
                prompt_tokens=answer.prompt, params=search_params("best_of_n"), sampling=sampling, seed=0
            )
            grown[key] = tree, {}, answer
        tree, outcomes, _ = grown[key]
        length = len(answer.tokens)
        # Log-probabilities are read with every token, and those of what is only imitated count for nothing.
        end = tree.add(
            tree.root, tokens=answer.tokens, logprobs=(0.0,) * length, length=length, terminal="eos"
        )
        outcomes[end.id] = answer.outcome
    return [
        LabelledTree(tree, outcomes, problem=first.problem, replayed=True)
        for tree, outcomes, first in grown.values()
    ]
