"""Releases between the service and the wire."""

from __future__ import annotations

from dataclasses import asdict

from ramify.api import wire_releases as wire
from ramify.service.catalogue import ReleaseEntry
from ramify.service.releases import ActivationResult, ReleaseListing

MOST_ACTIVATIONS = 100


def release_of(row: ReleaseEntry, active: str) -> wire.Release:
    manifest = row.manifest
    return wire.Release(
        id=row.id,
        state=row.state,
        active=row.id == active,
        parent=manifest.parent if manifest else None,
        created=int(manifest.created_at.timestamp()) if manifest else None,
        training_step=manifest.training_step if manifest else None,
        metrics=manifest.metrics if manifest else {},
        figures=row.figures,
        on_disk=manifest is not None,
    )


def list_of(listing: ReleaseListing) -> wire.ReleaseList:
    return wire.ReleaseList(
        active=listing.active,
        previous=listing.previous,
        data=[release_of(row, listing.active) for row in listing.rows],
        activations=[
            wire.Activation(release=row.release_id, at=row.activated_at, note=row.note, kind=row.kind)
            for row in listing.activations[:MOST_ACTIVATIONS]
        ],
    )


def activated_of(done: ActivationResult) -> wire.Activated:
    return wire.Activated(
        release=done.release,
        previous=done.previous,
        canary=wire.Canary(**asdict(done.finding)),
        seconds=wire.Seconds(**asdict(done.seconds)),
    )
