"""Searches that share a budget: where the tokens go, that they hold, and how each search ends."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakePolicy, Rule
from ramify.search.allocation import FOUND, SOUGHT, Standing
from ramify.search.batch import Batch, run_all
from ramify.search.params import ParamError
from ramify.search.records import BudgetLimits, Sampling
from search_worlds import World, check, described, rule_for, variants, world

LENGTH = 4
"""Tokens of every answer of `guesses`."""
ENOUGH = BudgetLimits(simulations=10_000)


def guesses(p: float) -> Rule:
    """Answers of three letters, of which "yes" is right and comes with probability `p`; the wrong ones all differ."""
    wrong = {f"n{i:02d}": (1 - p) / 100 for i in range(100)}

    def rule(text: str) -> dict[str, float]:
        return {"": 1.0} if text else {"yes": p, **wrong}

    return rule


def known(text: str) -> float:
    """A value model that makes no mistake."""
    return float(text == "yes")


def guessing(batch: Batch, p: float, seed: int = 7, **params: Any) -> World:
    """A prompt that is answered rightly with probability `p` a draw."""
    given = {"algorithm": "best_of_n", "sampling": Sampling(max_tokens=LENGTH), "budget": ENOUGH, **params}
    return world(policy=FakePolicy(guesses(p)), value=known, batch=batch, seed=seed, **given)


def run(worlds: Sequence[World]) -> Sequence[World]:
    asyncio.run(run_all([one.search for one in worlds]))
    return worlds


def spent(worlds: Sequence[World]) -> list[int]:
    return [one.tree.usage.completion_tokens for one in worlds]


def solved(worlds: Sequence[World]) -> int:
    return sum(one.tree.answer is not None and one.tree.answer.text == "yes" for one in worlds)


# -- the rule ----------------------------------------------------------------------------------------------------


def test_the_rate_is_that_of_a_gamma_posterior_times_the_chance_that_nothing_is_right_yet():
    assert Standing(0.0, 0.0, 10.0).rate == FOUND / (SOUGHT * 10)
    assert Standing(0.0, 60.0, 10.0).rate == FOUND / (SOUGHT * 10 + 60)
    assert Standing(0.75, 60.0, 10.0).rate == 0.25 * FOUND / (SOUGHT * 10 + 60)
    assert Standing(0.0, 60.0, 10.0).gain == 10 * FOUND / (SOUGHT * 10 + 60)


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(1, 1e4), st.floats(0, 1), st.floats(1, 1e6))
def test_surer_answers_and_more_tokens_in_vain_leave_less_to_gain(
    confidence: float, tokens: float, length: float, surer: float, more: float
):
    now = Standing(confidence, tokens, length)
    assert Standing(confidence, tokens + more, length).rate <= now.rate
    assert Standing(confidence + surer * (1 - confidence), tokens, length).rate <= now.rate + 1e-12
    assert 0 <= now.gain <= FOUND / SOUGHT


# -- where the tokens go -----------------------------------------------------------------------------------------


def test_easy_prompts_stop_early_and_hard_ones_get_what_they_leave():
    batch = Batch(20 * 10 * LENGTH, parallel=4)
    worlds = run([guessing(batch, p, seed=i) for i, p in enumerate([0.9] * 10 + [0.05] * 10)])
    easy, hard = worlds[:10], worlds[10:]
    assert all(one.tree.stop_reason == "early" for one in easy)
    assert max(spent(easy)) < 10 * LENGTH < sum(spent(hard)) / len(hard)


def unsolved_in_turn(rates: Sequence[float], draws: int, rng: random.Random) -> int:
    """Prompts solved by the best rule for prompts of which nothing is known: a draw for each unsolved one in turn."""
    left = deque(rates)
    while left and draws:
        draws -= 1
        p = left.popleft()
        if rng.random() >= p:
            left.append(p)
    return len(rates) - len(left)


def oracle(rates: Sequence[float], draws: int, rng: random.Random) -> int:
    """Prompts solved by somebody who knows every rate: the unsolved one of the highest rate is always next."""
    left = sorted(rates)
    while left and draws:
        draws -= 1
        if rng.random() < left[-1]:
            left.pop()
    return len(rates) - len(left)


def evenly(rates: Sequence[float], draws: int, rng: random.Random) -> int:
    """Prompts solved if each gets the same number of draws."""
    each = draws // len(rates)
    return sum(any(rng.random() < p for _ in range(each)) for p in rates)


def test_sharing_solves_as_many_prompts_as_the_best_rule_that_does_not_know_their_rates():
    rates = [0.6, 0.2, 0.05, 0.02] * 20
    draws, rng, times = 8 * len(rates), random.Random(0), 200

    def expected(rule: Callable[[Sequence[float], int, random.Random], int]) -> float:
        return sum(rule(rates, draws, rng) for _ in range(times)) / times

    found = [
        solved(run([guessing(batch, p, seed=100 * i + j) for i, p in enumerate(rates)]))
        for j in range(5)
        for batch in [Batch(draws * LENGTH, parallel=8)]
    ]
    even, best, perfect = expected(evenly), expected(unsolved_in_turn), expected(oracle)
    assert even + 8 < sum(found) / len(found)
    assert best - 2 < sum(found) / len(found) < perfect


def test_equal_prompts_are_given_alike_wherever_they_stand():
    batch = Batch(12 * 20 * LENGTH, parallel=6)
    tokens = spent(run([guessing(batch, 0.0, seed=i) for i in range(12)]))
    assert max(tokens) - min(tokens) <= 2 * LENGTH


def test_a_hopeless_prompt_stops_once_another_answer_brings_too_little():
    batch = Batch(None, parallel=2, least_gain=0.02)
    (one,) = run([guessing(batch, 0.0)])
    assert one.tree.stop_reason == "early"
    # FOUND / (SOUGHT + n) < 0.02 once n answers were in vain
    assert abs(len(one.tree.completions) - (FOUND / 0.02 - SOUGHT)) <= 2


def test_without_a_judge_the_draws_that_agree_say_how_sure_the_answer_is():
    batch = Batch(50 * LENGTH, parallel=4)
    sure, torn = run(
        [guessing(batch, p, algorithm="self_consistency", answer="majority") for p in (1.0, 0.3)]
    )
    assert len(sure.tree.completions) < len(torn.tree.completions)


# -- what holds whatever happens ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    answers=st.integers(1, 30),
    parallel=st.integers(1, 12),
    own=st.integers(1, 5),
    jitter=st.integers(0, 1000),
)
def test_the_budget_holds_every_search_ends_and_every_prompt_is_answered(
    rates: list[float], answers: int, parallel: int, own: int, jitter: int
):
    total = max(answers, len(rates)) * LENGTH
    batch = Batch(total, parallel=parallel)
    worlds = [guessing(batch, p, seed=i, parallel=own) for i, p in enumerate(rates)]
    at_once = 0
    for one in worlds:
        one.policy.jitter = random.Random(jitter)

        def watch(progress: object, before: Any = one.search.observe) -> None:
            nonlocal at_once
            before(progress)
            at_once = max(at_once, sum(other.search.in_flight for other in worlds))

        one.search.observe = watch
    run(worlds)
    assert sum(spent(worlds)) <= total
    assert at_once <= parallel + len(worlds)  # final rollouts need no place
    for one in worlds:
        check(one)
        assert one.tree.status == "complete"
        assert one.tree.answer is not None
        assert one.policy.most_running <= own
    assert batch.purse is not None
    assert (batch.purse.spent, batch.purse.reserved) == (sum(spent(worlds)), 0)


@pytest.mark.parametrize("params", variants(), ids=described)
def test_every_algorithm_shares(params: dict[str, Any]):
    batch = Batch(900, parallel=6)
    given = {"sampling": Sampling(max_tokens=12), "parallel": 3, **params}
    worlds = run([world(rule_for(params), batch=batch, seed=i, **given) for i in range(4)])
    assert sum(spent(worlds)) <= 900
    for one in worlds:
        check(one)
        assert one.tree.answer is not None
        assert one.tree.status == "complete"


def test_a_search_keeps_to_its_own_limits_too():
    batch = Batch(1000, parallel=4)
    limits = BudgetLimits(simulations=10_000, tokens=5 * LENGTH)
    capped, free = run([guessing(batch, 0.0, budget=limits), guessing(batch, 0.0, seed=8)])
    assert (capped.tree.stop_reason, free.tree.stop_reason) == ("budget.tokens", "budget.shared")
    assert capped.tree.usage.completion_tokens == 5 * LENGTH
    assert sum(spent([capped, free])) == 1000


def test_a_purse_too_small_for_an_answer_of_each_is_refused():
    batch = Batch(2 * LENGTH)
    guessing(batch, 0.5)
    guessing(batch, 0.5)
    with pytest.raises(ValueError, match="a purse of 8 tokens cannot hold 4 back for every search"):
        guessing(batch, 0.5)


def test_waves_are_refused():
    with pytest.raises(ParamError) as refused:
        guessing(Batch(100), 0.5, schedule="waves")
    assert refused.value.field == "schedule"


# -- ends from outside -------------------------------------------------------------------------------------------


def held(batch: Batch, n: int) -> tuple[asyncio.Event, list[World]]:
    """Prompts whose draws end once the event is set."""
    gate, worlds = asyncio.Event(), [guessing(batch, 0.0, seed=i) for i in range(n)]
    for one in worlds:
        one.policy.gate = gate
    return gate, worlds


async def under_way(worlds: Sequence[World]) -> None:
    while not all(one.policy.running for one in worlds):  # noqa: ASYNC110 - the fakes set no event
        await asyncio.sleep(0)


def test_a_search_that_is_stopped_leaves_its_share_to_the_others():
    async def scenario() -> list[World]:
        batch = Batch(100 * LENGTH, parallel=4)
        gate, worlds = held(batch, 2)
        running = asyncio.create_task(run_all([one.search for one in worlds]))
        await under_way(worlds)
        worlds[0].search.stop("cancelled", "client")
        gate.set()
        await running
        return worlds

    stopped, other = asyncio.run(scenario())
    assert (stopped.tree.status, stopped.tree.stop_reason) == ("cancelled", "client")
    assert other.tree.stop_reason == "budget.shared"
    assert 99 * LENGTH < sum(spent([stopped, other])) <= 100 * LENGTH
    check(stopped)


def test_a_batch_whose_task_is_cancelled_lets_everything_go():
    async def scenario() -> list[World]:
        _, worlds = held(Batch(100 * LENGTH, parallel=4), 3)
        running = asyncio.create_task(run_all([one.search for one in worlds]))
        await under_way(worlds)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return worlds

    for one in asyncio.run(scenario()):
        assert one.tree.status == "cancelled"
        assert one.policy.running == 0
        check(one)


def test_a_search_whose_engine_dies_ends_alone():
    batch = Batch(50 * LENGTH, parallel=4)
    worlds = [guessing(batch, 0.0, seed=i) for i in range(3)]
    worlds[1].policy.die_after = 2
    run(worlds)
    assert [one.tree.status for one in worlds] == ["complete", "engine_dead", "complete"]
    assert [one.tree.stop_reason for one in worlds] == ["budget.shared", "error", "budget.shared"]


def test_seconds_end_all_of_them_with_the_answers_that_they_have():
    async def scenario() -> list[World]:
        batch = Batch(None, parallel=4, least_gain=0.0)
        loop = asyncio.get_running_loop()
        worlds = [guessing(batch, 0.0, seed=i, clock=loop.time, budget=BudgetLimits(seconds=0.05))
                  for i in range(3)]  # fmt: skip
        await run_all([one.search for one in worlds])
        return worlds

    for one in asyncio.run(scenario()):
        assert one.tree.stop_reason == "budget.seconds"
        assert one.tree.answer is not None
