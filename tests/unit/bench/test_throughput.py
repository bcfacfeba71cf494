"""A search that fails ends the run with its own error, which the command tells in one line."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from ramify.bench.throughput import Load, searched
from ramify.evaluation.methods import Method
from ramify.evaluation.runner import ProblemRefused, SearchFailed
from ramify.rewards.datasets import load

pytestmark = pytest.mark.anyio


class NoEngines:
    """Engines of no role, whose caches are empty."""

    def __init__(self) -> None:
        self.by_role: dict[str, Any] = {}

    async def reset_prefix_caches(self) -> None:
        pass


@dataclass
class FailingBackend:
    """Grows no tree."""

    error: Exception
    engines: NoEngines = field(default_factory=NoEngines)

    async def grow(self, *_: object) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [SearchFailed("the engine is dead"), ProblemRefused("prompt: too long: 900 > 500")]
)
async def test_a_search_that_fails_ends_the_run_with_its_error(error: Exception) -> None:
    problems = Load(load("countdown:dev", 2), Method("mcts", "mcts"), tokens=10, slots=2)
    backend: Any = FailingBackend(error)
    with pytest.raises(SearchFailed, match=str(error)):
        await searched(backend, problems, seed=0)
