"""Releases on disk: a policy and what judges it, verified before anything loads them::

    release = publish(Path("weights"), policy, value, Details(name="my-model"))
    load_release(Path("weights/v000001")).policy_path

| module | what it holds |
|---|---|
| `search_defaults` | how a release is searched if a request does not say |
| `manifest` | what a release says of itself, and the exceptions of this package |
| `tensors` | the headers of safetensors files |
| `adapter` | a LoRA adapter in place of a policy's whole weights |
| `value_head` | a linear head on the policy's trunk in place of a value model |
| `release` | finding and checking a release |
| `publish` | writing one, so that a reader sees a whole one or none |
| `store` | releases in an object store, and a folder as their cache |
| `alike` | the check that one release can take another's place in running engines |
"""

from ramify.weights.adapter import adapter_rank, check_adapter
from ramify.weights.alike import require_alike
from ramify.weights.manifest import (
    Action,
    Calibration,
    Details,
    FileDigest,
    Manifest,
    Probe,
    ReleaseNotFound,
    ReleaseTaken,
    StoreAway,
    ValueKind,
    WeightsError,
    check_id,
)
from ramify.weights.publish import next_id, publish
from ramify.weights.release import (
    ADAPTER,
    ModelFiles,
    Release,
    list_releases,
    load_release,
    models_of,
    release_path,
    shipped,
)
from ramify.weights.search_defaults import SearchDefaults, Worth, check_search_defaults, for_budget, toml_of
from ramify.weights.store import ReleaseStore
from ramify.weights.value_head import HEAD, check_value_head, hidden_size, value_kind

__all__ = [
    "ADAPTER",
    "HEAD",
    "Action",
    "Calibration",
    "Details",
    "FileDigest",
    "Manifest",
    "ModelFiles",
    "Probe",
    "Release",
    "ReleaseNotFound",
    "ReleaseStore",
    "ReleaseTaken",
    "SearchDefaults",
    "StoreAway",
    "ValueKind",
    "WeightsError",
    "Worth",
    "adapter_rank",
    "check_adapter",
    "check_id",
    "check_search_defaults",
    "check_value_head",
    "for_budget",
    "hidden_size",
    "list_releases",
    "load_release",
    "models_of",
    "next_id",
    "publish",
    "release_path",
    "require_alike",
    "shipped",
    "toml_of",
    "value_kind",
]
