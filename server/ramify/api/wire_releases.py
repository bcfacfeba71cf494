"""Releases on the wire."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ramify.api.wire_common import PLAIN, Reply, Request
from ramify.service.errors import DRAINED

MOST_FIGURES = 64 << 10
"""Bytes of a release's figures, as JSON."""
Note = Annotated[str, Field(max_length=500, pattern=PLAIN)]
Deadline = Annotated[float, Field(ge=0, le=3600)]


class Release(Reply):
    id: str
    object: Literal["release"] = "release"
    state: str = Field(
        description="`available` (nothing recorded), `candidate`, `promoted`, `rejected`, `failed`."
    )
    active: bool = Field(description="Whether it is what this server serves.")
    parent: str | None = Field(description="The release that it was trained from.")
    created: int | None = Field(description="Unix seconds of its publication; null where its files are gone.")
    training_step: int | None
    metrics: dict[str, float] = Field(description="Measured at its publication.")
    figures: dict[str, Any] = Field(description="Its gate's, as recorded.")
    on_disk: bool


class Activation(Reply):
    release: str
    at: float = Field(description="Unix seconds.")
    note: str
    kind: str = Field(description="`activate`, `rollback`, or `automatic`: done by the server itself.")


class ReleaseList(Reply):
    object: Literal["list"] = "list"
    active: str
    previous: str | None = Field(description="What a rollback would go back to.")
    data: list[Release] = Field(description="By id.")
    activations: list[Activation] = Field(description="Newest first, at most 100.")


class Verdict(Request):
    state: Literal["candidate", "promoted", "rejected"]
    figures: dict[str, Any] = Field(default={}, description="The gate's figures: at most 64 KiB of JSON.")

    @field_validator("figures")
    @classmethod
    def not_too_large(cls, figures: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(figures, allow_nan=False))
        except (ValueError, RecursionError):
            raise ValueError("must be plain JSON, without NaN and infinities") from None
        if size > MOST_FIGURES:
            raise ValueError(f"is {size} bytes of JSON; at most {MOST_FIGURES} are taken")
        return figures


class Activate(Request):
    deadline_seconds: Deadline = Field(
        default=30.0, description="That running searches may go on before they are stopped and answered."
    )
    note: Note = ""


class Canary(Reply):
    probes: int
    distinguishable: int = Field(description="Probes that tell the release from the one before.")
    max_logprob_error: float
    max_value_error: float


class Seconds(Reply):
    drain: float
    reload: float
    canary: float
    total: float


class Activated(Reply):
    object: Literal["activation"] = "activation"
    release: str
    previous: str | None
    canary: Canary
    seconds: Seconds


class Drain(Request):
    deadline_seconds: Deadline = Field(
        default=20.0, description="That running searches may go on before they are stopped and answered."
    )


class Drained(Reply):
    object: Literal["drain"] = "drain"
    drained: bool = True
    message: str = Field(default=DRAINED, description="What ends the drain.")
    seconds: float
