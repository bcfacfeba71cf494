"""The search's own processor time: 32 searches of 1,000 tokens at once, on a policy that answers at once.

.venv/bin/python tests/search_overhead.py            # microseconds a draw and a token, median of 7
.venv/bin/python tests/search_overhead.py profile    # where it goes
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fakes import FakeScorer, FakeTask
from ramify.search.records import Action, BudgetLimits, Sampling
from ramify.search.run import Search
from search_worlds import JudgingFake, new_tree

SEARCHES, TOKENS, REPEATS = 32, 1000, 7
TREE: dict[str, Any] = {"algorithm": "mcts", "action": Action("step", ("\n",), 16)}
CASES: dict[str, dict[str, Any]] = {
    "best_of_n": {"algorithm": "best_of_n"},
    "mcts": TREE,
    "mcts, abandon": {**TREE, "abandon": True, "kappa": 0.92, "kappa_growth": 3.2, "width": 1},
}


def five_lines(text: str) -> Mapping[str, float]:
    """31 tokens an answer, over a million answers."""
    return {"": 1.0} if text.count("\n") == 5 else {f"{c} = {c}\n": 1 / 16 for c in "abcdefghijklmnop"}


def mixed(text: str) -> float:
    return 0.05 + 0.9 * (sum(map(ord, text)) * 2654435761 % 1000 / 1000)


@dataclass
class TimedPolicy(JudgingFake):
    """Judges what it writes, and counts the time that it takes itself."""

    seconds: float = 0.0
    draws: int = 0

    async def _written(self, prefix: Any, sampling: Sampling, seeds: Any, draws: Any) -> Any:
        def timed(*request: Any) -> Any:
            before = time.process_time()
            drawn = draws(*request)
            self.seconds += time.process_time() - before
            self.draws += len(drawn)
            return drawn

        return await super()._written(prefix, sampling, seeds, timed)


async def at_once(params: Mapping[str, Any], policy: TimedPolicy) -> int:
    """Run the searches; return the tokens that they generated."""
    budget, sampling = BudgetLimits(tokens=TOKENS), Sampling(max_tokens=48)
    trees = [new_tree(budget=budget, sampling=sampling, seed=i, **params) for i in range(SEARCHES)]
    searches = [Search(t, policy, FakeScorer(mixed), FakeTask(), clock=time.monotonic) for t in trees]
    await asyncio.gather(*(search.run() for search in searches))
    return sum(tree.usage.completion_tokens for tree in trees)


def measured(params: Mapping[str, Any]) -> tuple[float, float]:
    """Return the microseconds of a draw and of a token, the policy's own left out."""
    policy = TimedPolicy(five_lines, value=mixed)
    gc.collect()
    before = time.process_time()
    tokens = asyncio.run(at_once(params, policy))
    spent = (time.process_time() - before - policy.seconds) * 1e6
    return spent / policy.draws, spent / tokens


def main() -> None:
    for name, params in CASES.items():
        if "profile" in sys.argv:
            with cProfile.Profile() as profile:
                measured(params)
            pstats.Stats(profile).sort_stats("tottime").print_stats(20)
        draw, token = map(statistics.median, zip(*(measured(params) for _ in range(REPEATS)), strict=True))
        print(f"{name:14} {draw:6.0f} µs a draw, {token:5.1f} µs a token")


if __name__ == "__main__":
    main()
