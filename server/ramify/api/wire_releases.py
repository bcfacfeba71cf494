"""Releases on the wire."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ramify import treelog
from ramify.api.wire_common import PLAIN, Reply, Request
from ramify.api.wire_log import DescribedAs, model_of, renamed
from ramify.fleet import Epoch, View, status
from ramify.service.canary import CanaryReport
from ramify.service.catalogue import ReleaseEntry, ReleaseListing
from ramify.service.errors import DRAINED
from ramify.service.releases import ActivationResult, ActivationSeconds
from ramify.weights import ValueKind

MOST_FIGURES = 64 << 10
"""Bytes of a release's figures, as JSON."""
MOST_ACTIVATIONS = 100
"""Rows of the history that are sent, newest first."""
Note = Annotated[str, Field(max_length=500, pattern=PLAIN)]
Deadline = Annotated[float, Field(ge=0, le=3600)]


class Release(Reply):
    id: str
    object: Literal["release"] = "release"
    state: str = Field(
        description="`available` (nothing recorded), `candidate`, `promoted`, `rejected`, `failed`."
    )
    active: bool = Field(description="True for the release that this server serves.")
    parent: str | None = Field(description="The release that it was trained from.")
    base: str | None = Field(
        description="The release whose policy its LoRA adapter stands on; null if its policy is whole."
    )
    created: int | None = Field(description="Unix seconds of its publication; null if its files are gone.")
    value: ValueKind | None = Field(
        description="What judges answers: a value `model`, or a value head on the policy's `trunk`; null if its files "
        "are gone."
    )
    training_step: int | None
    metrics: dict[str, float] = Field(description="Measured at its publication.")
    figures: dict[str, Any] = Field(description="Its gate's, as recorded.")
    on_disk: bool = Field(description="True if its files are on this server's disk or in its object store.")


KINDS = "`activate`, `rollback`, or `automatic`: done by the server itself."
Activation = Annotated[
    treelog.Activation,
    DescribedAs(
        renamed(
            treelog.Activation,
            "Activation",
            only=["release_id", "activated_at", "note"],
            instead={"kind": (str, Field(description=KINDS))},
            release="release_id",
            at="activated_at",
        )
    ),
]


class ReleaseList(Reply):
    object: Literal["list"] = "list"
    active: str
    previous: str | None = Field(description="The release that a rollback would go back to.")
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
        default=30.0,
        description="Seconds that running searches may go on before they are stopped and answered.",
    )
    note: Note = ""
    mode: Literal["rolling", "barrier"] | None = Field(
        default=None,
        description="In a fleet: `rolling` (the default) takes some replicas at a time, which answer with the new "
        "release at once; `barrier` has none answer with it before all of them can, and none with the old one after.",
    )


# These records are sent as they are.
Seconds = Annotated[ActivationSeconds, DescribedAs(model_of(ActivationSeconds, "Seconds"))]
Canary = Annotated[CanaryReport, DescribedAs(model_of(CanaryReport, "Canary"))]


class FleetReplica(Reply):
    id: str
    number: int | None = Field(description="Of this server among several: its answers and ids name it.")
    address: str
    status: str = Field(
        description="`starting`, `behind` (it catches up), `preparing`, `switching`, `waiting` (for the commit), "
        "`ready`, `leaving` (it drains), `evicted`, or `lost` (not seen for longer than its lease)."
    )
    epoch: int = Field(description="The epoch whose release it holds; 0: none yet.")
    version: str
    started: float = Field(description="Unix seconds.")
    seen: float = Field(description="When it last looked, in Unix seconds.")
    failures: int = Field(description="In a row, at its last step.")
    error: str | None
    seconds: Seconds | None = Field(description="Of its last change of release.")


FleetEpoch = Annotated[
    Epoch,
    DescribedAs(
        renamed(
            Epoch,
            "FleetEpoch",
            only=[
                "number",
                "release",
                "state",
                "mode",
                "note",
                "asked_by",
                "created_at",
                "ended_at",
                "error",
            ],
            created="created_at",
            ended="ended_at",
        )
    ),
]


class FleetState(Reply):
    object: Literal["fleet"] = "fleet"
    name: str
    committed: FleetEpoch = Field(description="What is served.")
    newest: FleetEpoch = Field(description="The last activation that was asked for.")
    replicas: list[FleetReplica]


class Activated(Reply):
    object: Literal["activation"] = "activation"
    release: str
    previous: str | None
    canary: Canary
    seconds: Seconds
    epoch: int | None = Field(
        default=None, description="In a fleet: the number of the epoch that is served now."
    )
    replicas: list[FleetReplica] | None = Field(default=None, description="In a fleet: every replica of it.")


class Drain(Request):
    deadline_seconds: Deadline = Field(
        default=20.0,
        description="Seconds that running searches may go on before they are stopped and answered.",
    )


class Drained(Reply):
    object: Literal["drain"] = "drain"
    drained: bool = True
    message: str = Field(default=DRAINED, description="How the drain is ended.")
    seconds: float


def release_of(row: ReleaseEntry, active: str) -> Release:
    manifest = row.manifest
    return Release(
        id=row.id,
        state=row.state,
        active=row.id == active,
        parent=manifest.parent if manifest else None,
        base=manifest.base.release if manifest and manifest.base else None,
        created=int(manifest.created_at.timestamp()) if manifest else None,
        value=manifest.value if manifest else None,
        training_step=manifest.training_step if manifest else None,
        metrics=manifest.metrics if manifest else {},
        figures=row.figures,
        on_disk=manifest is not None,
    )


def list_of(listing: ReleaseListing) -> ReleaseList:
    return ReleaseList(
        active=listing.active,
        previous=listing.previous,
        data=[release_of(row, listing.active) for row in listing.rows],
        activations=list(listing.activations[:MOST_ACTIVATIONS]),
    )


def activated_of(done: ActivationResult) -> Activated:
    return Activated(
        release=done.release,
        previous=done.previous,
        canary=done.report,
        seconds=done.seconds,
        epoch=done.epoch,
        replicas=None if done.fleet is None else replicas_of(done.fleet),
    )


def fleet_of(name: str, view: View) -> FleetState:
    return FleetState(
        name=name,
        committed=view.committed,
        newest=view.newest,
        replicas=replicas_of(view),
    )


def replicas_of(view: View) -> list[FleetReplica]:
    """The longest running one first."""
    rows = sorted(view.replicas.values(), key=lambda row: (row.started_at, row.id))
    return [
        FleetReplica(
            id=row.id,
            number=row.number,
            address=row.address,
            status=status(view, row),
            epoch=row.loaded,
            version=row.version,
            started=row.started_at,
            seen=row.seen_at,
            failures=row.failures,
            error=row.error,
            seconds=None if row.report is None else ActivationSeconds(**row.report["seconds"]),
        )
        for row in rows
    ]
