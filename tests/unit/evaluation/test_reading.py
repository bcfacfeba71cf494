from dataclasses import replace

import pytest

from fakes_evaluation import TASK, grow, grown, tokens
from ramify.evaluation.methods import DEFAULT, Method
from ramify.evaluation.reading import graded, read_off, rows_of
from ramify.search.answers import rank
from ramify.search.grouping import finals

pytestmark = pytest.mark.anyio

ONE_AT_A_TIME = {"parallel": 1}
FLAT = Method("flat", "best_of_n", "orm_max", search=ONE_AT_A_TIME)
VOTE = Method("vote", "self_consistency", "majority", search=ONE_AT_A_TIME)
TREE = Method("tree", "mcts", "orm_vote", search=ONE_AT_A_TIME)


def read(tree, verdicts, method, budget, longer):
    return read_off(grown(tree), verdicts, method, tokens(budget), problem=0, group="g", longer=longer)


@pytest.mark.parametrize("method", [FLAT, VOTE, TREE])
@pytest.mark.parametrize("seed", range(5))
async def test_reading_off_a_longer_search_equals_a_real_shorter_one(method, seed):
    """One simulation at a time, cut where the shorter search's own reservation stopped it."""
    long, short = await grow(method, tokens(300), seed), await grow(method, tokens(60), seed)
    spent = short.usage.completion_tokens
    ours = read(long, await graded(long, TASK), method, spent, longer=True)
    real = read(short, await graded(short, TASK), method, spent, longer=False)
    for name in (
        "correct",
        "any_correct",
        "final",
        "value",
        "completions",
        "tokens",
        "scored",
        "simulations",
    ):
        assert getattr(ours, name) == getattr(real, name), name


async def test_only_what_had_been_spent_counts():
    tree = await grow(FLAT, tokens(300))
    verdicts = await graded(tree, TASK)
    for budget in (20, 50, 100, 299):
        row = read(tree, verdicts, FLAT, budget, longer=True)
        assert row.tokens <= budget
        assert row.completions == sum(c.tokens <= budget for c in tree.completions)
        assert (row.seconds, row.policy_seconds, row.value_seconds) == (None, None, None)


async def test_before_the_first_answer_there_is_none_and_it_is_wrong():
    tree = await grow(FLAT, tokens(300))
    row = read(tree, await graded(tree, TASK), FLAT, 1, longer=True)
    assert (row.correct, row.any_correct, row.final, row.completions, row.tokens) == (
        False,
        False,
        None,
        0,
        0,
    )


async def test_any_correct_is_what_a_perfect_judge_would_have_scored():
    tree = await grow(FLAT, tokens(300))
    row = read(tree, await graded(tree, TASK), FLAT, 300, longer=False)
    assert row.any_correct is any(tree.text(tree.nodes[c.node]) == "a\nb\n" for c in tree.completions)
    assert row.any_correct
    assert row.final == "bb"  # what the scorer is fond of
    assert not row.correct


async def test_shared_draws_give_each_rule_its_own_answer():
    tree = await grow(FLAT, tokens(300))
    rows = rows_of(
        grown(tree), await graded(tree, TASK), [FLAT, VOTE], [tokens(100), tokens(300)], problem=4, group="g"
    )
    assert [(r.method, r.budget) for r in rows] == [
        ("flat", tokens(100)),
        ("flat", tokens(300)),
        ("vote", tokens(100)),
        ("vote", tokens(300)),
    ]
    given = await finals(tree, TASK)
    assert rows[1].final == rank(tree, given, "orm_max")[0].final
    assert rows[3].final == rank(tree, given, "majority")[0].final
    assert rows[1].final != rows[3].final


async def test_greedy_spends_one_answer_whatever_it_may():
    greedy = Method("greedy", "best_of_n", "majority", sampling={"temperature": 0.0}, simulations=1)
    tree = await grow(greedy, tokens(300))
    rows = rows_of(
        grown(tree), await graded(tree, TASK), [greedy], [tokens(100), tokens(300)], problem=0, group="g"
    )
    assert [row.tokens for row in rows] == [5, 5]
    assert [row.final for row in rows] == ["aa", "aa"]


async def test_a_bare_search_is_read_by_its_own_rule():
    for method in (FLAT, VOTE):
        tree = await grow(method, tokens(300))
        verdicts = await graded(tree, TASK)
        own = read(tree, verdicts, replace(DEFAULT, answer=tree.params.answer), 300, longer=False)
        assert read(tree, verdicts, DEFAULT, 300, longer=False) == own
