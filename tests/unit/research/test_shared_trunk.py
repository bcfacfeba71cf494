"""The trees of the shared-trunk experiment are what a search of flat answers would have logged."""

from __future__ import annotations

from ramify_trainer.gate.policy_scores import SampledAnswer
from research.shared_trunk import flat_tree

NEWLINE, END = 4, 2


def answer(*tokens: int, finished: bool = True, outcome: float = 0.0) -> SampledAnswer:
    return SampledAnswer((1, 7), tokens, finished, outcome)


def test_equal_steps_of_a_problem_s_answers_are_one_node() -> None:
    answers = [
        answer(8, NEWLINE, 9, END, outcome=1.0),
        answer(8, NEWLINE, 10, END),
        answer(8, NEWLINE, 9, END, outcome=1.0),
        answer(11, finished=False),
    ]
    logprobs = [[-0.1 * (i + 1)] * len(each.tokens) for i, each in enumerate(answers)]
    labelled = flat_tree(answers, logprobs, NEWLINE)
    nodes = labelled.tree.nodes[1:]
    assert [(n.parent, n.tokens, n.multiplicity, n.length, n.terminal) for n in nodes] == [
        (0, (8, NEWLINE), 3, 2, None),
        (1, (9, END), 2, 4, "eos"),
        (1, (10, END), 1, 4, "eos"),
        (0, (11,), 1, 1, "truncated"),
    ]
    assert labelled.outcomes == {2: 1.0, 3: 0.0, 4: 0.0}
    assert nodes[2].logprobs == (-0.2, -0.2)
