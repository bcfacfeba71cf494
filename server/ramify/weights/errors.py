"""The exception family of releases on disk.

::

    WeightsError
    ├── InvalidReleaseId     an id that is not v and six digits
    ├── ReleaseNotFound      no such directory
    ├── ReleaseExists        publishing under an id that is taken
    ├── ReleaseIncomplete    no READY marker: it is still being written, or its writing was cut short
    ├── InvalidManifest      manifest.json is missing, malformed, has unknown keys or another id
    ├── UnsafeRelease        symlinks, weight files that are not safetensors, paths that lead out
    ├── CorruptRelease       files that are missing, not listed, or differ from their hash; NaN weights
    └── IncompatibleRelease  another network, tokenizer or tensors than what it would replace
"""

from __future__ import annotations

__all__ = [
    "CorruptRelease",
    "IncompatibleRelease",
    "InvalidManifest",
    "InvalidReleaseId",
    "ReleaseExists",
    "ReleaseIncomplete",
    "ReleaseNotFound",
    "UnsafeRelease",
    "WeightsError",
]


class WeightsError(Exception):
    """Something is wrong with a release on disk; the message says what, where, and what to do."""


class InvalidReleaseId(WeightsError, ValueError):
    """A release id is not v and six digits."""


class ReleaseNotFound(WeightsError):
    """There is no directory for the release."""


class ReleaseExists(WeightsError):
    """A release of this id is already there."""


class ReleaseIncomplete(WeightsError):
    """The release has no READY marker."""


class InvalidManifest(WeightsError):
    """The manifest is missing or does not follow its schema."""


class UnsafeRelease(WeightsError):
    """The release holds something that must not be loaded."""


class CorruptRelease(WeightsError):
    """The release's files are not the ones that its manifest lists."""


class IncompatibleRelease(WeightsError):
    """The release cannot take the place of the one that runs."""
