import pytest

from fakes_evaluation import FakeBackend, problem, seconds, tokens
from ramify.evaluation.backends import refusal
from ramify.evaluation.methods import Method
from ramify.evaluation.report import markdown
from ramify.evaluation.runner import ProblemRefused, SearchFailed, Tally, run, schedule, seed_of
from ramify.evaluation.summary import summarise

pytestmark = pytest.mark.anyio

FLAT = Method("flat", "best_of_n", "orm_max")
VOTE = Method("vote", "self_consistency", "majority")
TREE = Method("tree", "mcts", "orm_vote")
GUMBEL = Method("gumbel", "gumbel", "orm_vote")
METHODS = [FLAT, VOTE, TREE, GUMBEL]
PROBLEMS = [problem(i) for i in range(5)]
LADDER = [tokens(40), tokens(80)]


async def results(concurrency: int, backend: FakeBackend | None = None, work=None):
    rows = []
    await run(
        backend or FakeBackend(),
        work or schedule(PROBLEMS, METHODS, LADDER, concurrency),
        seed=3,
        concurrency=concurrency,
        observe=rows.extend,
    )
    return sorted(rows, key=lambda row: (row.problem, row.method, row.budget))


def unclocked(rows):
    return [{name: getattr(row, name) for name in row.__slots__ if name != "seconds"} for row in rows]


async def test_every_problem_gets_a_row_of_every_method_at_every_budget():
    rows = await results(4)
    assert len(rows) == 5 * 4 * 2
    assert {row.group for row in rows} == {"even", "odd"}


async def test_runs_are_shared_where_they_can_be():
    backend = FakeBackend()
    await results(1, backend)
    asked = [(method, budget.amount) for index, method, budget, _ in backend.asked if index == 0]
    assert sorted(asked) == [
        ("flat", 80),
        *((name, size) for name in ("gumbel", "tree") for size in (40, 80)),
    ]


async def test_how_many_run_at_once_changes_no_row():
    assert unclocked(await results(1)) == unclocked(await results(16))


async def test_no_more_run_at_once_than_asked():
    backend = FakeBackend()
    await results(3, backend)
    assert backend.most_running == 3


async def test_what_is_done_is_not_run_again_and_the_rest_comes_out_the_same():
    whole = await results(2)
    done = frozenset((row.problem, row.method, row.budget) for row in whole if row.problem < 3)
    backend = FakeBackend()
    rest = await results(2, backend, schedule(PROBLEMS, METHODS, LADDER, 2, done))
    assert {index for index, *_ in backend.asked} == {3, 4}
    assert unclocked(rest) == unclocked([row for row in whole if row.problem >= 3])


async def test_a_failed_search_ends_the_run_with_its_own_error():
    with pytest.raises(SearchFailed, match=r"p2.*failed: told to"):
        await results(2, FakeBackend(fail_on=2))


def test_a_problem_has_one_seed_whatever_its_place():
    assert seed_of(problem(1), 0) == seed_of(problem(1), 0)
    assert len({seed_of(problem(i), s) for i in range(10) for s in range(10)}) == 100
    assert all(0 <= seed_of(problem(i), 0) < 1 << 53 for i in range(10))


async def test_the_tally_keeps_up():
    tally = Tally()
    rows = await results(2)
    tally.add(rows)
    mine = [row.correct for row in rows if (row.method, row.budget) == ("tree", tokens(80))]
    assert tally.accuracies()["tree", tokens(80)] == sum(mine) / len(mine)


async def test_one_refused_problem_does_not_end_the_run_and_its_rows_say_why():
    rows = await results(2, FakeBackend(refuse=2))
    refused = [row for row in rows if row.refused is not None]
    assert {row.problem for row in refused} == {2}
    assert len(refused) == len([row for row in rows if row.problem == 1])
    summary = summarise(rows, [m.name for m in METHODS], ["flat"])
    assert summary.refused == {2: "prompt: too long"}
    assert {figure.accuracy.n for figure in summary.figures if figure.group == "all"} == {4}
    assert "| 2 | prompt: too long |" in markdown(summary, {})


async def test_a_run_in_which_every_problem_is_refused_has_a_report():
    rows = await results(2, FakeBackend(refuse=0), schedule(PROBLEMS[:1], METHODS, LADDER[:1], 2))
    assert markdown(summarise(rows, [m.name for m in METHODS], ["flat"]), {}).count("too long") == 1


@pytest.mark.parametrize(
    ("param", "kind"),
    [
        ("prompt", ProblemRefused),
        ("task.problem.answer", ProblemRefused),
        ("messages", ProblemRefused),
        ("search.kappa", SearchFailed),
        ("sampling.max_tokens", SearchFailed),
        (None, SearchFailed),
    ],
)
def test_a_refused_field_of_the_method_ends_the_run_and_one_of_the_problem_does_not(param, kind):
    assert type(refusal("no", param)) is kind


async def test_on_the_clock_methods_take_turns_with_the_machine_to_themselves():
    problems = [problem(i) for i in range(5)]
    blocks = schedule(problems, [FLAT, VOTE, TREE], [tokens(40), seconds(2)], 1)
    assert {job.budgets for job in blocks[0]} == {(tokens(40),)}
    turns = [(block[0].methods[0].name, [job.index for job in block]) for block in blocks[1:]]
    assert [{job.budgets for job in block} for block in blocks[1:]] == [{(seconds(2),)}] * 9
    assert [indices for _, indices in turns] == [[0, 1]] * 3 + [[2, 3]] * 3 + [[4]] * 3
    orders = [[name for name, _ in turns[i : i + 3]] for i in (0, 3, 6)]
    assert [set(order) for order in orders] == [{"flat", "vote", "tree"}] * 3
    assert len({order[0] for order in orders}) == 3


async def test_a_block_ends_and_the_caches_are_cleared_before_the_next_begins():
    backend = FakeBackend()
    rows = await results(2, backend, schedule(PROBLEMS[:3], [FLAT, TREE], [seconds(0.01)], 1))
    assert backend.forgotten == [0, 2, 4, 5]
    assert len(rows) == 6
    assert all((row.policy_seconds, row.value_seconds) == (0.2, 0.1) for row in rows)


async def test_what_is_done_on_the_clock_is_not_run_again():
    done = {(0, "flat", seconds(1)), (0, "vote", seconds(1)), (1, "flat", seconds(1))}
    blocks = schedule(PROBLEMS[:2], [FLAT, VOTE], [seconds(1)], 1, done)
    assert [(job.index, job.methods) for block in blocks for job in block] == [(1, (VOTE,))]
