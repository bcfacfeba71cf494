"""API keys and their scopes. Only sha256 digests are compared, each in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from ramify.service.errors import ServiceError
from ramify.settings import ApiKey, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    key_id: str
    """Name of the API key; empty where the server has none configured."""
    scopes: frozenset[Scope]
    train: bool
    """Whether the trainer may learn from the caller's searches."""
    train_feedback: bool
    """Whether the trainer may learn from the caller's verdicts."""

    def require(self, scope: Scope) -> None:
        if scope not in self.scopes:
            raise ServiceError("forbidden", f"this API key lacks the scope {scope!r}")

    def owner_filter(self) -> str | None:
        """The only key whose trees the caller may see; `None`: everyone's."""
        return None if "log" in self.scopes else self.key_id


ANONYMOUS = Caller("", frozenset({"search", "log", "feedback"}), train=True, train_feedback=True)
"""The only caller of a server without keys, which listens on loopback alone."""


class Keyring:
    """The configured keys."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._callers = [
            (key.digest, Caller(key.name, frozenset(key.scopes), key.train, key.train_feedback))
            for key in keys
        ]

    @property
    def open(self) -> bool:
        """Whether no key is configured, so that everyone on this machine may ask."""
        return not self._callers

    def caller(self, authorization: str | None) -> Caller:
        """Who sent this Authorization header. Raises `ServiceError`."""
        if self.open:
            return ANONYMOUS
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise ServiceError("invalid_api_key", "send an API key: Authorization: Bearer <key>")
        digest = hashlib.sha256(secret.strip().encode()).digest()
        found = None
        for known, caller in self._callers:  # all of them, so that time does not tell which one matched
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise ServiceError("invalid_api_key", "this API key is not known here")
        return found
