"""Every error in OpenAI's one shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from ramify.api.wire_common import ErrorBody, ErrorDetail
from ramify.service import errors as e
from ramify.treelog import CorruptTree, LogError

logger = logging.getLogger(__name__)

MOST_ERRORS = 10
"""Wrong fields that one message names."""
MOST_SUGGESTIONS = 3
"""Fields that are suggested in place of an unknown one."""
ALIKE = 0.7
"""How alike two names must be to suggest one for the other, from 0 to 1 (difflib's ratio)."""
LONGEST_INPUT = 200
"""Characters of the sender's own text that an error repeats."""
LONGEST_MESSAGE = 2000
CLIENT_GONE = 499
"""nginx's status for a client that has left; it is seen in our own log only."""
NO_OBJECT = ("model_type", "model_attributes_type")
"""Pydantic's problems with what should be an object and is none."""
_BRANCH = re.compile(r"\[|^(constrained-)?(str|int|float|list)$")
"""How pydantic names a branch of a union in a path."""

STATUS: Mapping[e.Code, int] = {
    "invalid_value": 400,
    "invalid_api_key": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "conflict": 409,
    "lease_held": 409,
    "stale_version": 409,
    "activation_in_progress": 409,
    "release_rejected": 409,
    "activation_failed": 409,
    "cancelled": 409,
    "idempotency_key_reused": 422,
    "key_over_share": 429,
    "search_failed": 500,
    "generation_failed": 500,
    "server_full": 503,
    "engine_unavailable": 503,
    "not_ready": 503,
    "log_unavailable": 503,
    "no_answer": 504,
}
NO_RETRY: frozenset[e.Code] = frozenset({"no_answer", "search_failed", "generation_failed", "cancelled"})
"""Errors after which trying the same again would only cost the same again."""


def error_type(status: int) -> str:
    """Return OpenAI's family of errors for a status."""
    named = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return named.get(status, "server_error" if status >= 500 else "invalid_request_error")


def body(status: int, message: str, param: str | None = None, code: str | None = None) -> ErrorBody:
    detail = ErrorDetail(message=message[:LONGEST_MESSAGE], type=error_type(status), param=param, code=code)
    return ErrorBody(error=detail)


def body_of(error: e.ServiceError) -> ErrorBody:
    field = f"{error.param}: " if error.param and isinstance(error, e.BadRequest) else ""
    return body(STATUS[error.code], field + error.message, error.param, error.code)


def response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return JSONResponse(body(status, message, param, code).model_dump(), status, headers)


def service_response(error: e.ServiceError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.code in NO_RETRY:
        headers["x-should-retry"] = "false"
    if error.code == "invalid_api_key":
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(error).model_dump(), STATUS[error.code], headers)


def log_response(error: LogError) -> Response:
    status, told = log_failure(error)
    headers = {"x-should-retry": "false"} if isinstance(error, CorruptTree) else {"Retry-After": "5"}
    return JSONResponse(told.model_dump(), status, headers)


def log_failure(error: LogError) -> tuple[int, ErrorBody]:
    """Return the status and the body for what the log cannot do."""
    logger.error("the tree log failed: %s", error)
    if isinstance(error, CorruptTree):
        message = f"the row of {error.tree_id} in the log is not what was written: {error.problem}"
        return 500, body(500, message, code="tree_corrupt")
    return 503, body(503, "the tree log does not answer; nothing was lost", code="log_unavailable")


def internal_error(number: str) -> ErrorBody:
    """Describe an error of ours, whose traceback is in the server's log under the request's id."""
    message = f"internal error; quote {number}, under which the server's log has it"
    return body(500, message, code="internal_error")


def stream_error(error: Exception, number: str) -> ErrorBody:
    """Describe an error that broke off an answer whose beginning was sent. number: the request's id."""
    if isinstance(error, e.ServiceError):
        return body_of(error)
    if isinstance(error, LogError):
        return log_failure(error)[1]
    logger.error("the stream of request %s broke off", number, exc_info=error)
    return internal_error(number)


def validation_response(
    problems: Sequence[Mapping[str, Any]], taken: type[BaseModel] | None = None
) -> Response:
    """Answer 400 with what is wrong; `param` is the first field. taken: the model of the body that the route takes."""
    param = field_of(most_specific(problems)[0]) or None
    return response(400, summary(problems, taken), param=param, code="invalid_value")


def summary(problems: Sequence[Mapping[str, Any]], taken: type[BaseModel] | None = None) -> str:
    """Say in one line what pydantic finds wrong with a value: at most ten faults."""
    faults = most_specific(problems)
    lines = list(dict.fromkeys(explain(fault, taken) for fault in faults[:MOST_ERRORS]))
    if len(faults) > MOST_ERRORS:
        lines.append(f"and {len(faults) - MOST_ERRORS} more")
    return "; ".join(lines)


def most_specific(problems: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out what the branches of a union say for which a value was not meant.

    Pydantic tells what every branch finds. For a field that takes a string or a list, `""` is a string that is too
    short; that it is no list is no second fault. So a wrong type is left out if another branch takes the value's type
    and finds something wrong in it.
    """
    typed: set[str] = set()
    for problem in problems:
        if not problem["type"].endswith("_type"):
            path = field_of(problem)
            typed.update(path[: at.start()] for at in re.finditer(r"\.|$", path))
    return [p for p in problems if not (p["type"].endswith("_type") and field_of(p) in typed)]


def explain(problem: Mapping[str, Any], taken: type[BaseModel] | None = None) -> str:
    """Say what is wrong with one field."""
    field, given = field_of(problem), problem.get("input")
    if problem["type"] == "extra_forbidden":
        instead = " or ".join(suggestions(taken, field)) if taken else ""
        return f"{field}: unknown field" + (f"; did you mean {instead}?" if instead else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in NO_OBJECT:
        message = "must be a JSON object" if field else "the body must be a JSON object"
    shown = f" (got {short(given)})" if isinstance(given, str | int | float | bool) else ""
    return f"{field}: {message}{shown}" if field else f"{message}{shown}"


def short(given: object) -> str:
    """Show at most about 200 characters of what was sent."""
    text = given[: LONGEST_INPUT + 1] if isinstance(given, str) else given
    shown = repr(text) if not isinstance(given, int) or abs(given) < 10**18 else "a number of many digits"
    return shown if len(shown) <= LONGEST_INPUT else shown[:LONGEST_INPUT] + "…"


def field_of(problem: Mapping[str, Any]) -> str:
    """Return the field of one of pydantic's problems, such as `search.budget.tokens`; "" for the body itself."""
    location = [str(part)[:100] for part in problem["loc"]]
    if location and location[0] in ("body", "query", "path", "header"):
        location = location[1:]
    # what names the branch of a union is no field: a type, or the class of a model
    if problem["type"] in NO_OBJECT and location and location[-1][:1].isupper():
        location = location[:-1]
    return ".".join(part for part in location if not _BRANCH.search(part))


def body_model(request: Request) -> type[BaseModel] | None:
    """Return the wire model of the body that the request's route takes; None if it takes none."""
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = field and field.field_info.annotation
    return kind if is_model(kind) else None


def methods_of(app: FastAPI, request: Request) -> list[str]:
    """List the methods taken at the request's path. Starlette names those of the first route there only.

    A path that is a route of its own (/v1/search/batch) is no value of another's parameter (/v1/search/{search_id}).
    """
    routes = [route for route in app.routes if isinstance(route, Route)]
    there = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    own = [route for route in there if route.path == request.scope["path"]]
    return sorted({method for route in own or there for method in route.methods or ()})


async def _service_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, e.ServiceError)
    return service_response(error)


async def _log_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, LogError)
    return log_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_response(error.errors(), body_model(request))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message, code, headers = str(error.detail), None, dict(error.headers or {})
    if error.status_code == 404:
        message, code = f"unknown route {request.scope['path'][:LONGEST_INPUT]!r}", "unknown_route"
    elif error.status_code == 405:
        allowed = headers["Allow"] = ", ".join(methods_of(request.app, request))
        message = f"{request.method[:20]} is not allowed on this route; it takes {allowed}"
        code = "method_not_allowed"
    elif error.status_code == 413:
        code = "body_too_large"
    elif error.status_code == 415:
        code = "unsupported_media_type"
    return response(error.status_code, message, code=code, headers=headers)


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _any_error(request: Request, _: Exception) -> Response:
    return JSONResponse(internal_error(request.scope.get("ramify_request_id", "unknown")).model_dump(), 500)


HANDLERS = {
    e.ServiceError: _service_error,
    LogError: _log_error,
    RequestValidationError: _validation_error,
    HTTPException: _http_error,
    ClientDisconnect: _client_gone,
    Exception: _any_error,
}


def install(app: FastAPI) -> None:
    """Make the application answer every error in the one shape."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


# -- suggestions for unknown fields ----------------------------------------------------------------------------------


def suggestions(body: type[BaseModel], path: str) -> list[str]:
    """Return the paths of `body`'s fields that the unknown `path` was probably meant for, the likeliest first.

    Fields beside it come before fields elsewhere: `search.kapa` is `search.kappa`; `tokens` is `search.budget.tokens`.
    """
    parent, _, name = path.rpartition(".")
    known: dict[str, list[str]] = {}
    for field in paths(body):
        known.setdefault(field.rpartition(".")[2], []).append(field)
    beside = {n for n, fields in known.items() if any(f.rpartition(".")[0] == parent for f in fields)}
    if close := get_close_matches(name[:64], beside, n=1, cutoff=ALIKE):
        return [".".join(filter(None, (parent, close[0])))]
    close = get_close_matches(name[:64], known, n=1, cutoff=ALIKE)
    return known[close[0]][:MOST_SUGGESTIONS] if close else []


def paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every field, objects included, and of what is in them. Lists are not looked into."""
    for name, field in model.model_fields.items():
        yield prefix + (field.alias or name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if is_model(kind):
                yield from paths(kind, f"{prefix}{name}.")


def is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)
