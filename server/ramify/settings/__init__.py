"""Every setting of the server, in one typed tree::

    settings = load(Path("ramify.toml"), port=9000, limits={"page": 5})
    settings.admission.tokens_in_flight

Sources, the later winning: the defaults, a TOML file, `RAMIFY_…` variables (`RAMIFY_PORT=9000`,
`RAMIFY_LIMITS__BUDGET_TOKENS=5000`), flags. An unknown key is an error in each of them. `make docs` makes
docs/configuration.md from the fields' descriptions.

| module | what it holds |
|---|---|
| `placeholders` | secrets that nobody has chosen |
| `groups` | the groups of settings, one class a TOML table, and the reading of TOML files |
| `loading` | `Settings`, all of them together, and `load`, which makes one from every source |
"""

from ramify.settings.groups import (
    AdminSettings,
    AdmissionSettings,
    ApiKey,
    AuthSettings,
    BadSettings,
    CheckpointSettings,
    FleetSettings,
    ProbeSettings,
    RequestCaps,
    RetentionSettings,
    Scope,
    SearchAlias,
    SpoolSettings,
    StreamSettings,
    is_loopback,
)
from ramify.settings.loading import Settings, load

__all__ = [
    "AdminSettings",
    "AdmissionSettings",
    "ApiKey",
    "AuthSettings",
    "BadSettings",
    "CheckpointSettings",
    "FleetSettings",
    "ProbeSettings",
    "RequestCaps",
    "RetentionSettings",
    "Scope",
    "SearchAlias",
    "Settings",
    "SpoolSettings",
    "StreamSettings",
    "is_loopback",
    "load",
]
