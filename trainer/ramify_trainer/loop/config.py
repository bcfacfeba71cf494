"""Everything a run of the loop can be told, from one TOML file. Unknown keys are refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ramify_trainer.collecting import CollectConfig
from ramify_trainer.learning.config import LearningConfig
from ramify_trainer.learning.outcomes import OutcomeWeights


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Section):
    """The server that searches and serves. Keys come from files, else from `RAMIFY_API_KEY`, `RAMIFY_ADMIN__KEY`."""

    url: str = "http://127.0.0.1:8000"
    admin_url: str = "http://127.0.0.1:8001"
    key_file: Path | None = None
    """Scopes search and log."""
    admin_key_file: Path | None = None
    activate_seconds: float = Field(default=30.0, gt=0)
    """That running searches may go on when new weights are loaded."""


class MeasureConfig(_Section):
    """Held-out problems, answered without search."""

    data: str
    problems: int = Field(default=200, ge=1)
    answers: int = Field(default=16, ge=1)
    """k of mean@k: answers to each problem at temperature 1."""
    max_tokens: int = Field(default=40, ge=1)
    """Of one answer."""


class GateConfig(MeasureConfig):
    """What a candidate must pass; the dev split."""

    data: str = "countdown:dev?numbers=4,5,6"
    margin: float = Field(default=0.02, ge=0, le=1)
    """How much worse a lower bound may say that it is."""


class HeldOutConfig(MeasureConfig):
    """What the report shows; never used to decide anything."""

    data: str = "countdown:test?numbers=4,5,6"
    problems: int = Field(default=300, ge=1)


class LoopConfig(_Section):
    """One run."""

    name: str = Field(default="loop", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """Part of every Idempotency-Key: another run searches anew. Also the log's consumer."""
    seed: int = Field(default=0, ge=0)
    rounds: int = Field(default=5, ge=1)
    base: str = "shipped"
    """The release that the first round starts from: `shipped`, or a directory."""
    weights: Path = Path("runs/weights")
    """Folder of releases, the server's `weights`. The base is copied into it."""
    state: Path = Path("runs/loop")
    """Where the run keeps what it needs to go on."""
    server: ServerConfig = ServerConfig()
    collect: CollectConfig = CollectConfig()
    outcomes: OutcomeWeights = OutcomeWeights()
    learning: LearningConfig = LearningConfig()
    gate: GateConfig = GateConfig()
    held_out: HeldOutConfig = HeldOutConfig()

    @classmethod
    def read(cls, path: Path) -> LoopConfig:
        """Raises `pydantic.ValidationError` for unknown or wrong keys, `tomllib.TOMLDecodeError`, `OSError`."""
        return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
