"""What a client is told once: where the server is, the key, and how long to wait."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import httpx

from ramify_client.retries import Retries

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_ADMIN_URL = "http://127.0.0.1:8001"
DEFAULT_TIMEOUT = 600.0
"""Seconds for one call, retries and waits included."""
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Configuration:
    base_url: str
    api_key: str | None = field(repr=False)
    timeout: float
    retries: Retries

    @classmethod
    def of_admin(
        cls, base_url: str | None, key: str | None, timeout: float, max_retries: int
    ) -> Configuration:
        """`RAMIFY_ADMIN_URL` and `RAMIFY_ADMIN__KEY` stand in for what is not given; the public key never does."""
        url = base_url or os.environ.get("RAMIFY_ADMIN_URL") or DEFAULT_ADMIN_URL
        found = cls.of(url, None, timeout, max_retries)
        return replace(found, api_key=key or os.environ.get("RAMIFY_ADMIN__KEY"))

    @classmethod
    def of(cls, base_url: str | None, api_key: str | None, timeout: float, max_retries: int) -> Configuration:
        """`RAMIFY_BASE_URL` and `RAMIFY_API_KEY` stand in for what is not given."""
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout}; give seconds above 0")
        if max_retries < 0:
            raise ValueError(f"max_retries is {max_retries}; give 0 or more")
        return cls(
            (base_url or os.environ.get("RAMIFY_BASE_URL") or DEFAULT_URL).rstrip("/"),
            api_key or os.environ.get("RAMIFY_API_KEY"),
            timeout,
            Retries(max_retries),
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def waits(self, left: float) -> httpx.Timeout:
        """httpx's time limits for one try, `left` seconds before the call's end."""
        return httpx.Timeout(max(0.001, left), connect=min(CONNECT_SECONDS, max(0.001, left)))
