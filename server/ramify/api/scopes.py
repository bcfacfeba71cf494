"""Checks before a route is entered: a key with the scope that the route needs, and no unknown query parameter.

Denied by default: a route whose function declares no scope cannot be made. The checks run inside the matched route,
before its body is read, so they go by the very path that was routed; nothing is decided on a URL rebuilt from the Host
header (CVE-2026-48746).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.routing import APIRoute

from ramify.api import json_body
from ramify.api.context import context_of
from ramify.api.owners import at_owner
from ramify.service.errors import BadRequest
from ramify.settings import Scope

Need = Scope | Literal["open", "any"]
"""Scope that a route needs. `open`: no key is asked for. `any`: any known key."""
Function = TypeVar("Function", bound=Callable[..., Any])
_SCOPES, _ANY_QUERY, _OWNED = "__ramify_scopes__", "__ramify_any_query__", "__ramify_owned__"


def needs(*scopes: Need, any_query: bool = False, owned: str | None = None) -> Callable[[Function], Function]:
    """Declare that a route takes callers with any one of `scopes`.

    any_query: the route takes every query parameter, as a page does whose own script reads them. owned: the path's
    parameter with an id whose owner answers, if that is another replica. Such a route takes no body.
    """

    def mark(function: Function) -> Function:
        setattr(function, _SCOPES, scopes)
        setattr(function, _ANY_QUERY, any_query)
        setattr(function, _OWNED, owned)
        return function

    return mark


class StrictRoute(APIRoute):
    """A route that refuses query parameters that it does not know, as bodies refuse unknown fields, and a header of its
    own that is given twice."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        if getattr(self.endpoint, _ANY_QUERY, False):
            return handler
        asked = get_flat_dependant(self.dependant)
        known = [field.alias for field in asked.query_params]
        headers = [field.alias for field in asked.header_params]

        async def strict(request: Request) -> Response:
            for name in request.query_params:
                if name not in known:
                    raise unknown_parameter(name, known)
            for name in headers:
                if (times := len(request.headers.getlist(name))) > 1:
                    raise BadRequest(f"is given {times} times; give it once", param=name)
            if self.body_field is not None:
                request = await json_body.read(request)
            return await handler(request)

        return strict


class ScopedRoute(StrictRoute):
    """A strict route that checks its declared scopes first."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **rest: Any) -> None:
        scopes: tuple[Need, ...] | None = getattr(endpoint, _SCOPES, None)
        if not scopes:
            raise TypeError(f"the route {path} declares no scope: mark {endpoint.__name__} with @needs(...)")
        self.scopes = scopes
        super().__init__(path, endpoint, **rest)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler, scopes = super().get_route_handler(), self.scopes
        owned: str | None = getattr(self.endpoint, _OWNED)

        async def guarded(request: Request) -> Response:
            if "open" not in scopes:
                caller = context_of(request).keyring.caller(request.headers.get("authorization"))
                if "any" not in scopes:
                    caller.require(*scopes)
                request.state.caller = caller
            if owned is not None:
                return await at_owner(request, request.path_params[owned], handler)
            return await handler(request)

        return guarded


def unknown_parameter(name: str, known: Sequence[str]) -> BadRequest:
    """Build the refusal of a query parameter, with the known one that was probably meant."""
    close = get_close_matches(name[:64], known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return BadRequest(f"unknown query parameter{meant}", param=name[:100])
