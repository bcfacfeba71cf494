"""One `Settings` from every source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ramify.settings.files import BadSettings, explain, read_toml
from ramify.settings.top import PREFIX, Settings, file_content, variables

OTHERS = (
    "RAMIFY_TRAINER_",
    "RAMIFY_CRASH_",
    "RAMIFY_TEST_",
    "RAMIFY_EXAMPLES",
    "RAMIFY_URL",
    "RAMIFY_ADMIN_URL",
    "RAMIFY_API_KEY",
    "RAMIFY_BASE_URL",
    "RAMIFY_ADMIN_URL",
    "RAMIFY_ENGINE_RUN_FOLDER",
    "RAMIFY_ENGINE_SERVER",
)
"""Variables with our prefix that belong to others: the trainer, the tests, the client, the engines' own processes."""


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from all sources. A flag that is `None` was not given; nested ones are mappings
    (``limits={"page": 5}``). Raises `BadSettings`."""
    token = file_content.set(read_toml(config) if config else {})
    try:
        _refuse_unknown_variables()
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise BadSettings(explain(error)) from error
    finally:
        file_content.reset(token)
    settings.auth.all_keys()
    return settings


def _refuse_unknown_variables() -> None:
    known = {name for name, _, _ in variables()}
    for name in os.environ:
        if name.startswith(PREFIX) and not name.startswith(OTHERS) and name.upper() not in known:
            raise BadSettings(
                f"the variable {name} is no setting of Ramify (docs/configuration.md lists them)"
            )
