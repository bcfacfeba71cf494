"""Every setting of the server, in one typed tree.

Sources, the later winning: the defaults below, a TOML file, ``RAMIFY_…`` variables (``RAMIFY_PORT=9000``,
``RAMIFY_LIMITS__BUDGET_TOKENS=5000``), flags. An unknown key is an error in each of them. `docs/configuration.md`
is made from the field descriptions by ``python -m ramify.settings``.

| module | what it holds |
|---|---|
| `groups` | the groups of settings, one class a TOML table |
| `top` | `Settings`, all of them together |
| `loading` | `load`: one `Settings` from every source |
| `placeholders` | secrets that nobody has chosen |
| `files` | TOML files, and what is wrong with them in one line |
| `page` | the page of documentation |
"""

from ramify.settings.files import BadSettings
from ramify.settings.groups import (
    AdminSettings,
    AdmissionSettings,
    ApiKey,
    AuthSettings,
    ConnectionSettings,
    EngineSettings,
    ProbeSettings,
    RequestCaps,
    RetentionSettings,
    Scope,
    SearchAlias,
    SpoolSettings,
    StreamSettings,
    is_loopback,
)
from ramify.settings.loading import load
from ramify.settings.top import Settings

__all__ = [
    "AdminSettings",
    "AdmissionSettings",
    "ApiKey",
    "AuthSettings",
    "BadSettings",
    "ConnectionSettings",
    "EngineSettings",
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
