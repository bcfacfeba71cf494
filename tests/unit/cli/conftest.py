from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from ramify.cli import app


@pytest.fixture
def ramify(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command with arguments; its output is not wrapped."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("RAMIFY_API_KEY", "RAMIFY_PORT", "RAMIFY_LOG"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run
