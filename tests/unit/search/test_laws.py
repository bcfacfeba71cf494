"""Laws of every tree, whatever the algorithm, its parameters, and the way its search ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fakes import FakePolicy, FakeTask
from ramify.search.plans import Plan
from ramify.search.records import BudgetLimits, Sampling
from search_worlds import World, check, described, ran, rule_for, variants, world

SETTINGS = settings(
    max_examples=int(os.environ.get("RAMIFY_EXAMPLES", "4")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.generate),
)
"""`RAMIFY_EXAMPLES=100` looks deeper. What fails is not shrunk: the examples are small, and shrinking takes minutes."""

budgets = st.builds(
    BudgetLimits,
    simulations=st.integers(1, 24),
    tokens=st.none() | st.integers(12, 120),
    nodes=st.none() | st.integers(1, 60),
)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1.0]),
    max_tokens=st.integers(3, 12),
    stop=st.sampled_from([(), ("b",), ("\n",), ("a\na",)]),
)
circumstances = st.fixed_dictionaries(
    {
        "budget": budgets,
        "sampling": samplings,
        "seed": st.integers(0, 2**32),
        "schedule": st.sampled_from(["waves", "continuous"]),
        "grader": st.sampled_from(["model", "verifier"]),
        "parallel": st.sampled_from([1, 2, 5]),
    }
)


def unreliable() -> FakeTask:
    """A verifier that likes answers beginning with `a` and fails on those that end in `b`."""
    return FakeTask(lambda text: text.startswith("a"), lambda text: text.rstrip("\n").endswith("b"))


def policy(params: dict[str, Any], jitter: int, **fields: Any) -> FakePolicy:
    return FakePolicy(rule_for(params), jitter=random.Random(jitter), **fields)


@pytest.mark.parametrize("params", variants(), ids=described)
@SETTINGS
@given(circumstances, st.integers(0, 99))
def test_a_finished_tree_keeps_the_laws(params: dict[str, Any], chosen: dict[str, Any], jitter: int) -> None:
    found = ran(policy=policy(params, jitter), task=unreliable(), **params, **chosen)
    check(found)
    assert found.tree.status == "complete"
    assert found.tree.error is None
    assert found.tree.answer is not None


@pytest.mark.parametrize("params", variants(), ids=described)
@SETTINGS
@given(circumstances, st.integers(1, 60), st.integers(0, 99))
def test_a_search_cancelled_at_any_moment_keeps_the_laws(
    params: dict[str, Any], chosen: dict[str, Any], moment: int, jitter: int
) -> None:
    found = world(policy=policy(params, jitter), task=unreliable(), **params, **chosen)
    asyncio.run(_cancelled(found, moment))
    check(found)
    assert found.tree.status in ("cancelled", "complete")


async def _cancelled(found: World, moment: int) -> None:
    running = asyncio.create_task(found.run())
    for _ in range(moment):
        await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("params", variants(), ids=described)
@SETTINGS
@given(circumstances, st.integers(0, 12), st.integers(0, 99))
def test_an_engine_that_dies_at_any_request_leaves_a_lawful_tree(
    params: dict[str, Any], chosen: dict[str, Any], request: int, jitter: int
) -> None:
    found = world(policy=policy(params, jitter, die_after=request), task=unreliable(), **params, **chosen)
    asyncio.run(found.run())
    check(found)
    dead = found.tree.status == "engine_dead"
    assert dead == (found.tree.error is not None)
    assert dead or found.tree.status == "complete"


@pytest.mark.parametrize("params", [p for p in variants() if p.get("select") != "thompson"], ids=described)
def test_a_plan_that_was_not_sent_is_offered_again(params: dict[str, Any]) -> None:
    found = world(
        rule_for(params), **params, parallel=3, schedule="waves", budget=BudgetLimits(simulations=12)
    )
    select = found.search.algorithm.select

    def twice() -> Plan | None:
        first, second = select(), select()
        assert wanted(first) == wanted(second)
        return second

    found.search.algorithm.select = twice  # type: ignore[method-assign]
    asyncio.run(found.run())
    assert found.tree.error is None
    check(found)


def wanted(plan: Plan | None) -> object:
    return plan and (plan.simulation, [node.id for node in plan.path], plan.kind, plan.n, plan.cost)
