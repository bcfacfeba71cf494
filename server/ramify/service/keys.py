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
    """The sender of a request, known by its API key."""

    key_id: str
    """Name of the API key; empty if the server has no keys."""
    scopes: frozenset[Scope]
    train: bool
    """True if the trainer may learn from the caller's searches."""
    train_feedback: bool
    """True if the trainer may learn from the caller's feedback."""

    def require(self, *scopes: str) -> None:
        """Raise `ServiceError` (`forbidden`) if the key has none of the scopes."""
        if not self.scopes.intersection(scopes):
            named = " or ".join(repr(scope) for scope in scopes)
            raise ServiceError("forbidden", f"this API key lacks the scope {named}")

    def owner_filter(self) -> str | None:
        """Return the only key whose trees the caller may see; `None` if it may see everyone's."""
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
        """True if no key is configured, so that everyone on this machine may ask."""
        return not self._callers

    def caller(self, authorization: str | None) -> Caller:
        """Return the sender of an Authorization header. Raises `ServiceError` (`invalid_api_key`)."""
        if self.open:
            return ANONYMOUS
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise ServiceError("invalid_api_key", "send an API key: Authorization: Bearer <key>")
        digest = hashlib.sha256(secret.strip().encode()).digest()
        sender = None
        for known, caller in self._callers:  # all of them, so that time does not tell which one matched
            if hmac.compare_digest(known, digest):
                sender = caller
        if sender is None:
            raise ServiceError("invalid_api_key", "this API key is not known here")
        return sender
