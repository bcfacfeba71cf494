"""Releases on disk: a policy and a value model that belong together, verified before anything loads them.

``manifest`` describes a release, ``release`` finds and checks it, ``publish`` writes it, ``alike`` says whether one can
take another's place (``tensors`` reads what safetensors hold), ``errors`` is the exception family.
"""

from ramify.weights.alike import require_alike
from ramify.weights.errors import (
    CorruptRelease,
    IncompatibleRelease,
    InvalidManifest,
    InvalidReleaseId,
    ReleaseExists,
    ReleaseIncomplete,
    ReleaseNotFound,
    UnsafeRelease,
    WeightsError,
)
from ramify.weights.manifest import Action, Calibration, Details, FileDigest, Manifest, Probe, check_id
from ramify.weights.publish import next_id, publish
from ramify.weights.release import Release, list_releases, load_release, release_path, shipped

__all__ = [
    "Action",
    "Calibration",
    "CorruptRelease",
    "Details",
    "FileDigest",
    "IncompatibleRelease",
    "InvalidManifest",
    "InvalidReleaseId",
    "Manifest",
    "Probe",
    "Release",
    "ReleaseExists",
    "ReleaseIncomplete",
    "ReleaseNotFound",
    "UnsafeRelease",
    "WeightsError",
    "check_id",
    "list_releases",
    "load_release",
    "next_id",
    "publish",
    "release_path",
    "require_alike",
    "shipped",
]
