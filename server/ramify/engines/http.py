"""Another server over HTTP: its address, its key, and its failures that may pass.

Only settings name a server. Its key is sent as a bearer token and stands in no log, error or URL; redirects are not
followed, since they would carry it elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
from pydantic import SecretStr

from ramify.engines.errors import EngineStartFailed

KEY = re.compile(r"[!-~]+")
MOST_BYTES = 64 << 20
"""Largest reply."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses after which a later try may succeed."""
FIRST_WAIT = 0.2
"""Seconds before the second try, about; each later one waits twice as long."""


def read_url(url: str, setting: str) -> httpx.URL:
    """Read an address. setting: its name, for the error. Raises `EngineStartFailed`."""
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise EngineStartFailed(f"{setting} {url!r} is no address: {error}") from error


def read_key(key: SecretStr | None, key_file: Path | None, setting: str) -> str | None:
    """Return the key as it stands in a header, from the setting or from its file; `None` if there is neither.

    setting: the group of both, for the error. Raises `EngineStartFailed`."""
    if key_file is not None:
        name = f"{setting}.key_file {key_file}"
        try:
            found = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EngineStartFailed(f"{name} cannot be read") from error
    elif key is not None:
        name, found = f"{setting}.key", key.get_secret_value()
    else:
        return None
    if not KEY.fullmatch(found):
        raise EngineStartFailed(f"{name} must hold one key of printable ASCII characters without spaces")
    return found


def bearer(key: str | None) -> Mapping[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"} if key is not None else {}
