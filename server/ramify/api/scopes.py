"""Which scope a route needs. Denied by default: a route whose function declares none cannot be made.

The check runs inside the matched route, before its body is read, so it goes by the very path that was routed; nothing
is decided on a URL rebuilt from the Host header (CVE-2026-48746).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ramify.api.context import context_of
from ramify.service.errors import Forbidden
from ramify.service.keys import Caller
from ramify.settings import Scope

Need = Scope | Literal["open", "any"]
"""`open`: no key is asked for. `any`: any known key."""
Function = TypeVar("Function", bound=Callable[..., Any])
_MARK = "__ramify_scopes__"


def needs(*scopes: Need) -> Callable[[Function], Function]:
    """Declare that a route takes callers with any one of `scopes`."""

    def mark(function: Function) -> Function:
        setattr(function, _MARK, scopes)
        return function

    return mark


class ScopedRoute(APIRoute):
    """A route that checks its declared scopes first."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **rest: Any) -> None:
        scopes: tuple[Need, ...] | None = getattr(endpoint, _MARK, None)
        if not scopes:
            raise TypeError(f"the route {path} declares no scope: mark {endpoint.__name__} with @needs(...)")
        self.scopes = scopes
        super().__init__(path, endpoint, **rest)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler, scopes = super().get_route_handler(), self.scopes

        async def guarded(request: Request) -> Response:
            if "open" not in scopes:
                caller = context_of(request).keyring.caller(request.headers.get("authorization"))
                check(caller, scopes)
                request.state.caller = caller
            return await handler(request)

        return guarded


def check(caller: Caller, scopes: tuple[Need, ...]) -> None:
    """Raises `Forbidden`."""
    if "any" not in scopes and not caller.scopes.intersection(scopes):
        named = " or ".join(repr(scope) for scope in scopes)
        raise Forbidden(f"this API key lacks the scope {named}")
