"""`ramify eval`'s run on real engines."""

import time

import pytest

from fixtures_engines import LiveEngines, live_engines  # noqa: F401
from ramify.bench.throughput import Load, throughput
from ramify.evaluation.backends import UNLIMITED, LocalBackend
from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import load_methods
from ramify.evaluation.runner import run, schedule
from ramify.evaluation.summary import summarise
from ramify.rewards.datasets import load
from ramify.service.search_preparation import SearchPreparer

pytestmark = pytest.mark.vllm


@pytest.fixture
def backend(live_engines: LiveEngines) -> LocalBackend:  # noqa: F811
    engines = live_engines.engines
    return LocalBackend(engines, SearchPreparer(engines, UNLIMITED, time.time))


@pytest.mark.slow
def test_the_frozen_methods_run_on_a_handful_of_problems(backend, live_engines):  # noqa: F811
    methods, asked, rows = load_methods(), load("countdown:dev", 3, 0), []
    ladder = [Budget("tokens", 100), Budget("tokens", 200), Budget("seconds", 0.3)]
    work = schedule(asked, methods, ladder, 3)
    live_engines.run(run(backend, work, seed=0, concurrency=3, observe=rows.extend), timeout=170)
    assert len(rows) == len(methods) * 3 * 3
    assert all(row.tokens <= row.budget.amount for row in rows if row.budget.unit == "tokens")
    assert all(row.policy_seconds > 0 for row in rows if row.budget.unit == "seconds")
    summary = summarise(rows, [m.name for m in methods], ["greedy", "best_of_n"])
    assert {f.group for f in summary.figures} == {"4 numbers", "5 numbers", "6 numbers", "all"}


def test_searches_are_timed_against_a_replay_of_their_engine_calls(backend, live_engines):  # noqa: F811
    (method,) = load_methods(names=["mcts"])
    work = Load(load("countdown:dev", 4, 0), method, tokens=150, slots=2)
    (pair,) = live_engines.run(throughput(backend, work, 1, lambda line: None), timeout=170)
    assert pair.searched.requests > 4
    assert pair.searched.tokens > 0
    assert pair.ratio > 0
