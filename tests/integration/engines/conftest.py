from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures_engines import START_SECONDS, LiveEngines, live_engines
from ramify.engines import Engines

__all__ = ["live_engines"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = __file__.rpartition("/")[0]
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(START_SECONDS + 120))
    items.sort(
        key=lambda item: item.path.name == "test_death.py"
    )  # after all that needs the engines that it kills


@pytest.fixture
def engines(live_engines: LiveEngines) -> Iterator[Engines]:
    """The session's engines; the test leaves no work in them."""
    yield live_engines.engines
    figures = live_engines.engines.stats()
    assert {
        name: figures[name] for name in figures if name.endswith(("running", "waiting")) and figures[name]
    } == {}
