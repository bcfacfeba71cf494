"""Refusals of a fleet. A failure of its database is a `treelog.LogError`."""

from __future__ import annotations

from ramify.fleet.records import Epoch


class FleetError(Exception):
    """A replica may not join: the message says what to change."""


class ActivationUnderWay(Exception):
    """Another activation has not ended; `epoch` is its row."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__(f"{epoch.release} is being activated")
        self.epoch = epoch
