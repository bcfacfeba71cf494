"""Which answer a tree gives, by each rule."""

from __future__ import annotations

import asyncio

import pytest

from fakes import FakeTask
from ramify.search.answers import rank
from ramify.search.grouping import finals
from ramify.search.records import Answer
from ramify.search.tree import Completion, Node, Tree
from search_worlds import new_tree

RULES = ("majority", "orm_max", "orm_vote", "most_visited")


def answered(*draws: tuple[str, float | None], grader: str = "model", at: int = 10) -> Tree:
    """A flat tree of these answers, drawn in this order at `at` tokens each: text, and value or outcome."""
    tree = new_tree(grader=grader)
    for i, (text, judged) in enumerate(draws):
        node = next((child for child in tree.children(tree.root) if child.text == text), None)
        if node is None:
            node = tree.add(
                tree.root, tokens=tuple(map(ord, text)), text=text, terminal="eos", multiplicity=0
            )
            if grader == "model":
                node.value = judged
            else:
                node.outcome, node.outcome_source = judged, "verifier"
        node.multiplicity += 1
        tree.completions.append(Completion(node.id, i + 1, at * (i + 1)))
    return tree


def ranked(tree: Tree, rule: str, at_tokens: int | None = None) -> list[Answer]:
    names = asyncio.run(finals(tree, FakeTask()))
    return rank(tree, names, rule, at_tokens)  # type: ignore[arg-type]


def order(tree: Tree, rule: str, at_tokens: int | None = None) -> list[str | None]:
    return [answer.final for answer in ranked(tree, rule, at_tokens)]


THREE = answered(("A", 0.3), ("A", 0.3), ("B", 0.8), ("A", 0.3), ("C", 0.45), ("C", 0.5 - 0.05))
"""A three times at 0.3 (sum 0.9), B once at 0.8, C twice at 0.45 (sum 0.9 less one ulp or so)."""


def test_a_tie_of_votes_goes_to_the_earlier_answer_however_the_others_are_judged():
    # self-consistency has no judge: what the outcome model thinks of B must not decide it
    assert order(answered(("A", 0.1), ("B", 0.9)), "majority") == ["A", "B"]


def test_majority_counts_draws():
    # argmax_f Σ_j 1[f_j = f]: 3, 2, 1 of 6
    assert order(THREE, "majority") == ["A", "C", "B"]
    assert [a.votes for a in ranked(THREE, "majority")] == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_orm_max_takes_the_answer_of_the_best_single_draw():
    # argmax_j r(y_j): 0.8, 0.45, 0.3. The formula that some write-ups call orm_vote.
    assert order(THREE, "orm_max") == ["B", "C", "A"]


def test_orm_vote_sums_the_judgements_of_the_draws():
    # argmax_f Σ_{j: f_j = f} r(y_j): A 0.9 over B 0.8, though B is the best draw
    tree = answered(("A", 0.3), ("A", 0.3), ("B", 0.8), ("A", 0.3))
    assert order(tree, "orm_vote") == ["A", "B"]
    assert [a.votes for a in ranked(tree, "orm_vote")] == pytest.approx([0.9 / 1.7, 0.8 / 1.7])


def test_a_draw_counts_as_often_as_it_was_drawn():
    # one leaf each, but A's was reached three times
    once = answered(("A", 0.4), ("B", 0.5))
    thrice = answered(("A", 0.4), ("B", 0.5), ("A", 0.4), ("A", 0.4))
    assert len(once.nodes) == len(thrice.nodes) == 3
    assert order(once, "orm_vote") == ["B", "A"]
    assert order(thrice, "orm_vote") == order(thrice, "majority") == ["A", "B"]
    assert order(thrice, "orm_max") == ["B", "A"]


def test_different_texts_of_one_final_answer_vote_together():
    tree = answered(("A", 0.4), ("A\n", 0.4), ("B", 0.7))
    assert order(tree, "orm_vote") == ["A", "B"]
    assert ranked(tree, "orm_vote")[0].text == "A"


@pytest.mark.parametrize("rule", RULES)
def test_a_lone_answer_has_all_the_votes(rule: str):
    # min-max rescaling would give it none
    tree = answered(("A", 0.2))
    tree.nodes[1].visits = 1
    assert [(a.final, a.votes) for a in ranked(tree, rule)] == [("A", 1.0)]


def test_equal_answers_share_the_votes():
    # min-max rescaling of equal judgements would leave nothing to share
    tree = answered(("A", 0.2), ("B", 0.2))
    for rule in ("majority", "orm_max", "orm_vote"):
        assert [(a.final, a.votes) for a in ranked(tree, rule)] == [("A", 0.5), ("B", 0.5)]


def test_an_answer_worth_nothing_is_still_an_answer():
    tree = answered(("A", 0.0))
    for rule in ("orm_max", "orm_vote"):
        assert [(a.final, a.votes) for a in ranked(tree, rule)] == [("A", 0.0)]


def test_with_a_verifier_the_outcome_judges_and_not_the_model():
    tree = answered(("A", 0.0), ("B", 1.0), ("A", 0.0), grader="verifier")
    tree.nodes[1].value = 0.99
    assert order(tree, "orm_max") == order(tree, "orm_vote") == ["B", "A"]
    assert order(tree, "majority") == ["A", "B"]
    best = ranked(tree, "orm_max")[0]
    assert (best.outcome, best.outcome_source) == (1.0, "verifier")


def test_an_answer_that_the_verifier_failed_on_has_no_weight_but_stays():
    tree = answered(("A", None), ("B", 0.0), ("C", 1.0), grader="verifier")
    assert order(tree, "orm_vote")[0] == "C"
    assert {a.outcome for a in ranked(tree, "orm_vote")} == {None, 0.0, 1.0}


def test_texts_without_an_answer_have_no_votes_and_come_last():
    tree = answered(("\n", 0.9), ("\n", 0.9), ("A", 0.1))
    for rule in ("majority", "orm_max", "orm_vote"):
        assert [(a.final, a.votes) for a in ranked(tree, rule)] == [("A", 1.0), (None, 0.0)]


def test_most_visited_follows_the_path_of_most_visits_not_the_most_visited_leaf():
    # below a (5 visits): A with 2; below b (4 visits): B with 4. The path of most visits ends at A.
    tree = new_tree()
    a, b = tree.add(tree.root, visits=5), tree.add(tree.root, visits=4)
    for parent, text, n in ((a, "A", 2), (b, "B", 4)):
        leaf = tree.add(parent, text=text, terminal="eos", visits=n)
        tree.completions.append(Completion(leaf.id, 1, 1))
    assert order(tree, "most_visited") == ["A", "B"]
    tree.committed = [b.id]  # a committed step goes before visits
    assert order(tree, "most_visited") == ["B", "A"]


def test_the_answer_at_fewer_tokens_knows_only_the_draws_that_had_landed():
    tree = answered(("A", 0.3), ("B", 0.8), ("A", 0.3), ("A", 0.3))  # at 10, 20, 30 and 40 tokens
    assert order(tree, "orm_vote", 9) == []
    assert order(tree, "orm_vote", 10) == ["A"]
    assert order(tree, "orm_vote", 29) == ["B", "A"]
    assert order(tree, "majority", 30) == ["A", "B"]
    assert ranked(tree, "majority", 30)[0].votes == pytest.approx(2 / 3)
    assert order(tree, "orm_vote", 40) == ["A", "B"]


def test_truncated_texts_are_not_answers():
    tree = answered(("A", 0.5))
    tree.add(tree.root, text="B", terminal="truncated", value=0.0, visits=9)
    assert order(tree, "most_visited") == ["A"]


def test_an_answers_text_is_its_best_judged_draw():
    tree = answered(("A", 0.2), ("A\n", 0.6))
    (answer,) = ranked(tree, "majority")
    assert (answer.text, answer.value, answer.node) == ("A\n", 0.6, 2)


def test_all_nodes_named_by_answers_are_complete():
    tree = answered(("A", 0.2), ("B", 0.6))
    leaves: list[Node] = [tree.nodes[answer.node] for answer in ranked(tree, "majority")]
    assert {leaf.terminal for leaf in leaves} == {"eos"}


def test_without_replacement_an_answer_counts_by_its_share_of_the_policys_draws():
    # under the first step, drawn once but as likely as 3 of 4 draws, one end of two
    tree = new_tree(replacement=False)
    likely = tree.add(tree.root, tokens=(1,), text="x\n", stands_for=3.0)
    rare = tree.add(tree.root, tokens=(2,), text="y\n", stands_for=1.0)
    ends = [
        tree.add(above, tokens=(i,), text=text, terminal="eos", value=value, stands_for=draws)
        for i, (above, text, value, draws) in enumerate(
            [(likely, "A", 0.4, 0.5), (likely, "B", 0.2, 1.5), (rare, "A", 0.4, 0.5), (rare, "C", 0.9, 0.5)]
        )
    ]
    tree.completions += [Completion(end.id, i + 1, 10 * (i + 1)) for i, end in enumerate(ends)]
    assert [tree.share(end) for end in ends] == pytest.approx([3 / 16, 9 / 16, 1 / 8, 1 / 8])
    names = {end.id: end.text for end in ends}
    majority = rank(tree, names, "majority")
    assert [(a.final, a.votes) for a in majority] == [("B", 9 / 16), ("A", 5 / 16), ("C", 1 / 8)]
    by_value = rank(tree, names, "orm_vote")
    weights = [("A", 0.4 * 5 / 16), ("B", 0.2 * 9 / 16), ("C", 0.9 / 8)]
    assert [a.final for a in by_value] == ["A", "B", "C"]
    total = sum(weight for _, weight in weights)
    assert [a.votes for a in by_value] == pytest.approx([weight / total for _, weight in weights])
    assert rank(tree, names, "orm_max")[0].final == "C"
