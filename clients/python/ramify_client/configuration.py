"""Configuration of a client: the server's address, the key, and how long to wait."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_ADMIN_URL = "http://127.0.0.1:8001"
DEFAULT_TIMEOUT = 600.0
"""Seconds for one call, retries and waits included."""
CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 256 << 20
"""Bytes of one answer that is read as a whole."""


@dataclass(frozen=True)
class Configuration:
    """Checked when it is made: `of` and `of_admin` raise `ValueError`."""

    base_url: str
    api_key: str | None = field(repr=False)
    timeout: float
    max_retries: int
    """Further tries of a call that may be repeated."""

    @classmethod
    def of(cls, base_url: str | None, api_key: str | None, timeout: float, max_retries: int) -> Configuration:
        """Read `RAMIFY_BASE_URL` and `RAMIFY_API_KEY` for what is not given. An empty key sends none."""
        url = base_url or os.environ.get("RAMIFY_BASE_URL") or DEFAULT_URL
        key = os.environ.get("RAMIFY_API_KEY") if api_key is None else api_key
        return cls._checked(url, key, timeout, max_retries)

    @classmethod
    def of_admin(
        cls, base_url: str | None, key: str | None, timeout: float, max_retries: int
    ) -> Configuration:
        """Read `RAMIFY_ADMIN_URL` and `RAMIFY_ADMIN__KEY` for what is not given; never the public key."""
        url = base_url or os.environ.get("RAMIFY_ADMIN_URL") or DEFAULT_ADMIN_URL
        return cls._checked(url, key or os.environ.get("RAMIFY_ADMIN__KEY"), timeout, max_retries)

    @classmethod
    def _checked(cls, url: str, key: str | None, timeout: float, max_retries: int) -> Configuration:
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}; give seconds above 0")
        if max_retries < 0:
            raise ValueError(f"max_retries is {max_retries}; give 0 or more")
        return cls(_address(url), _key(key or None), timeout, max_retries)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def waits(self, left: float) -> httpx.Timeout:
        """httpx's time limits for one try, `left` seconds before the call's end."""
        return httpx.Timeout(left, connect=min(CONNECT_SECONDS, left))


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"not the address of a server: {error}") from error
    if parsed.userinfo:
        raise ValueError("the server's address holds a user name or password; give the API key apart from it")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"not the address of a server: {url!r}; give one such as {DEFAULT_URL}")
    return url.rstrip("/")


def _key(key: str | None) -> str | None:
    """Checked here, since the HTTP library would repeat a header that it cannot send in its error."""
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("the API key holds a space, a line break or a character outside ASCII")
    return key
