"""How `make test` shares the suite out between processes: by file, all that starts real engines in two of them, and
what takes longest first, so that the processes end together.

Nobody keeps a list of times: a file whose tests need a longer limit than the usual one says so in its `timeout` marks.
"""

from __future__ import annotations

import gc
import os
from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# The models of most tests are too small for a second thread, and threads of several processes that wait for each other
# in turn take many times as long. Engines set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.disable()  # until `pytest_collection_finish`: next to nothing that is made until then is garbage

ON_FAKES = ("tests/integration/cli/test_over_http.py", "tests/integration/cli/test_releases_live.py")
GROUP_OF = {
    **dict.fromkeys(ON_FAKES),
    "tests/integration/api/": "servers",
    "tests/integration/cli/test_eval_on_vllm.py": "engines",
    "tests/integration/cli/": "servers",
    "tests/integration/clients/": "engines",
    "tests/integration/engines/": "engines",
    "tests/contract/api/test_typescript_client.py": "engines",
}
"""Groups of files that stay in one process, by the beginnings of their names, of which the first counts: a pair of
engines takes two gigabytes, and `engines` share one pair and one build of the TypeScript client. `None`: no group."""
GROUPS = {group for group in GROUP_OF.values() if group}


def scope_of(nodeid: str) -> str:
    """Name what is not divided: a file or a group of files."""
    groups = (group for beginning, group in GROUP_OF.items() if nodeid.startswith(beginning))
    return next(groups, None) or nodeid.partition("::")[0]


class LongestFirst(LoadFileScheduling):
    """Hands out scopes in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, at most four: engines that start, leases that run out and servers that drain are
    waited for, and what waits leaves its core to others."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LongestFirst:
    config.option.loadscopereorder = False  # which puts a file of one long test last
    return LongestFirst(config, log)


def pytest_collection_finish() -> None:
    """Leave out of every collection of garbage what stays until the end: half a million objects of modules and tests,
    which would be walked again and again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of `make test`, sort scopes by their longest limit, then by their number of tests; groups first."""
    if not hasattr(config, "workerinput"):
        return
    scopes = [scope_of(item.nodeid) for item in items]
    tests, limits = Counter(scopes), dict.fromkeys(scopes, 0.0)
    for scope, item in zip(scopes, items, strict=True):
        limits[scope] = max(limits[scope], *(mark.args[0] for mark in item.iter_markers("timeout")), 0.0)
    order = sorted(tests, key=lambda scope: (scope not in GROUPS, -limits[scope], -tests[scope]))
    places = {scope: place for place, scope in enumerate(order)}
    items.sort(key=lambda item: places[scope_of(item.nodeid)])
