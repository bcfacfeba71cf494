from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from fakes import FakeReviser, FakeTask
from ramify.api.middleware import names_this_machine
from ramify.api.wire_log import dot
from ramify.api.wire_search import Search
from ramify.rewards.errors import CallFailed
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import search_params
from ramify.search.protocols import GradingFailed
from ramify.search.records import BudgetLimits, Sampling, SearchParams, Verdict
from ramify.search.tree import Tree
from ramify.service import search_view
from ramify.service.completion_spec import PREFIX
from ramify.service.errors import ServiceError
from ramify.service.grading import CountedTask, counting
from ramify.service.keys import ANONYMOUS, Keyring
from ramify.service.search_preparation import worst_case
from ramify.settings import ApiKey
from search_worlds import STEP, TOKEN, described, ran, rule_for, variants


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_ids_are_uuid7_and_sort_by_time() -> None:
    made = [search_view.uuid7(1_700_000_000 + i / 1000) for i in range(100)]
    assert made == sorted(made)
    assert {(uuid.UUID(m).version, uuid.UUID(m).variant) for m in made} == {(7, uuid.RFC_4122)}


def test_ids_end_with_the_number_of_the_server_that_gave_them() -> None:
    made = search_view.uuid7(1_700_000_000, 10)
    assert made[-2:] == "0a"
    assert (uuid.UUID(made).version, uuid.UUID(made).variant) == (7, uuid.RFC_4122)
    assert search_view.uuid7(1_700_000_000, 10) != made
    for prefix in (search_view.SEARCH, search_view.TREE, search_view.BATCH, *PREFIX.values()):
        assert search_view.numbered(prefix + made) == 10
    for callers_own in (made, f"trace-{made}", f"x-cmpl-{made}", f"srch_{made}\n"):
        assert search_view.numbered(callers_own) is None


def test_a_search_and_its_tree_share_one_id() -> None:
    number = search_view.uuid7(1.0)
    assert search_view.search_id("tree_" + number) == "srch_" + number
    assert search_view.tree_id("srch_" + number) == search_view.tree_id("tree_" + number) == "tree_" + number
    for odd in (
        number,
        "srch_",
        "srch_" + number[:-1],
        "srch_" + number.upper() + "A",
        "x" + number,
        "tree_../../x",
    ):
        assert search_view.tree_id(odd) is None


def test_the_wire_has_every_search_parameter_and_no_other() -> None:
    assert set(Search.model_fields) == {"algorithm"}.union(*(kind.parameters for kind in ALGORITHMS.values()))


def test_a_keyring_knows_its_keys_alone() -> None:
    ring = Keyring([ApiKey(name="a", key="0123456789abcdef"), ApiKey(name="b", sha256="0" * 64)])
    assert ring.caller("Bearer 0123456789abcdef").key_id == "a"
    assert ring.caller("bearer  0123456789abcdef ").key_id == "a"
    for odd in (None, "", "Bearer", "Bearer ", "Bearer x", "0123456789abcdef", "Bearer " + "0" * 64):
        with pytest.raises(ServiceError):
            ring.caller(odd)
    assert Keyring([]).caller(None) is ANONYMOUS


async def unwritten(prompt: Sequence[int], tokens: int) -> str:
    raise AssertionError("no critique is wanted")


@pytest.mark.anyio
async def test_grading_failures_are_counted_by_kind_and_passed_on() -> None:
    seen: list[str] = []

    class Hung(FakeTask):
        async def grade(self, text: str) -> Verdict:
            raise CallFailed("deadline", "too slow")

    for task in (Hung(), FakeTask(broken=lambda text: True)):
        with pytest.raises(GradingFailed):
            await CountedTask(task, seen.append).grade("x")
    assert seen == ["deadline", "no_verifier"]
    mute = counting(FakeReviser(mute=lambda text: text == "x"), seen.append)
    with pytest.raises(GradingFailed):
        await mute("x", None, unwritten)
    assert seen[2:] == ["no_feedback"]
    assert (await mute("y", 0.5, unwritten)).feedback == "outcome 0.5"
    passing = CountedTask(FakeTask(right=lambda text: True), seen.append)
    assert (await passing.grade("x")).outcome == 1.0
    assert await passing.final("a\n") == "a"


@pytest.mark.parametrize(
    ("params", "tokens"),
    [
        ({}, (3 + 2) * 10),
        ({"algorithm": "self_consistency"}, 2 * 10 + 10),
        ({"algorithm": "gumbel"}, (8 + 2) * 10),
        ({"expand": "step"}, 2 * 3 * 4 + 10),
        ({"expand": "step", "leaf": "mixed"}, 2 * (3 * 4 + 10) + 10),
        ({"expand": "step", "action": TOKEN}, 2 + 10),
        ({"algorithm": "rap"}, 2 * 10 * 3 * 4 + 10),
        ({"algorithm": "dvts"}, 2 * 4 * 3 * 4 + 10),
        ({"algorithm": "particle"}, 2 * 16 * 4 + 10),
    ],
)
def test_a_budget_without_tokens_gets_what_its_simulations_could_cost(
    params: dict[str, Any], tokens: int
) -> None:
    # two simulations, answers of 10 tokens, steps of 4, 3 draws an expansion (or the algorithm's own), one last answer
    width = {} if params.get("algorithm") in ("self_consistency", "gumbel", "particle") else {"width": 3}
    action = {} if params.get("algorithm") == "self_consistency" else {"action": STEP}
    given = search_params(**{**width, **action, **params}, budget=BudgetLimits(simulations=2))
    assert worst_case(given, Sampling(max_tokens=10)) == tokens


@pytest.mark.parametrize("params", variants(), ids=described)
def test_no_search_needs_more_tokens_than_the_worst_case(params: dict[str, Any]) -> None:
    free = ran(rule_for(params), **params, budget=BudgetLimits(simulations=30), schedule="waves")
    most = worst_case(free.tree.params, free.tree.sampling)
    held = ran(rule_for(params), **params, budget=BudgetLimits(simulations=30, tokens=most), schedule="waves")
    assert held.tree.stop_reason == free.tree.stop_reason
    assert held.tree.usage == free.tree.usage


def test_dot_quotes_whatever_a_model_may_write() -> None:
    tree = Tree(
        id="tree_1",
        created_at=0.0,
        model="m",
        prompt='say "x"\\\n',
        prompt_tokens=(1,),
        params=SearchParams(),
        sampling=Sampling(),
        seed=1,
    )
    tree.add(tree.root, text='"]; evil [label="\x00\n' + "y" * 200)
    written = dot(tree)
    assert '\\"]; evil' in written
    assert "\x00" not in written
    assert max(map(len, written.splitlines())) < 200


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8000"]
)
def test_loopback_names(name: str) -> None:
    assert names_this_machine(name)


@pytest.mark.parametrize(
    "name", ["", "127.evil.example", "127.0.0.1.evil", "localhost.evil", "::1", "10.0.0.1"]
)
def test_other_names(name: str) -> None:
    assert not names_this_machine(name)
