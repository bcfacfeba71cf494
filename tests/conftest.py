"""How `make test` shares the suite out between processes: by file, and all that starts real engines in one of them."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ON_ENGINES = tuple(f"tests/integration/{folder}/" for folder in ("api", "cli", "clients", "engines"))


class EnginesTogether(LoadFileScheduling):
    """Shares tests out by file, those on real engines as one file: a pair of engines takes two gigabytes."""

    def _split_scope(self, nodeid: str) -> str:
        return "engines" if nodeid.startswith(ON_ENGINES) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> EnginesTogether:
    return EnginesTogether(config, log)
