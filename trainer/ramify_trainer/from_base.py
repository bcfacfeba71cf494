"""What the TOML files of `loop` and `compare` have in common: the release that training starts from."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict


class FromBase(BaseModel):
    """A TOML file about training from a base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = "shipped"
    """The release that training starts from: `shipped`, or a directory."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """A `base` that is a relative path is relative to the file. Raises `pydantic.ValidationError` for unknown or
        wrong keys, `tomllib.TOMLDecodeError`, `OSError`."""
        found = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        if found.base == "shipped":
            return found
        return found.model_copy(update={"base": str(path.parent / found.base)})
