"""Errors of a trainer; the message says what to change."""

from __future__ import annotations


class TrainerError(Exception):
    """Any error of the trainer's own."""


class CollectionFailed(TrainerError):
    """The server did not take or did not finish a search."""
