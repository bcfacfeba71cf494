"""The OpenAPI document: FastAPI's own, with our errors in place of its 422, and the keys' scopes."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from ramify.api.scopes import ScopedRoute
from ramify.api.wire_batch import BatchCompleted, BatchProgressed, BatchStarted
from ramify.api.wire_common import ErrorBody
from ramify.api.wire_log import LogRecord
from ramify.api.wire_search import Progressed, Started

Responses = dict[int | str, dict[str, Any]]
TEXT = {"schema": {"type": "string"}}
EVENT = {
    "schema": {
        "type": "object",
        "description": "Each event of the stream (OpenAPI 3.1 has no word for the whole); `data` is JSON, or [DONE]",
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        "required": ["data"],
    }
}
STREAM: Responses = {200: {"description": "The answer", "content": {"text/event-stream": EVENT}}}
LINES = {"schema": {"type": "string", "description": "One `LogRecord` a line"}}
NDJSON: Responses = {200: {"description": "A page, or lines", "content": {"application/x-ndjson": LINES}}}
DOT: Responses = {200: {"description": "The tree", "content": {"text/vnd.graphviz": TEXT}}}
METRICS: Responses = {200: {"description": "Prometheus text format", "content": {"text/plain": TEXT}}}

PROMPT = "3 5 7 8 to 24"


def _examples(**examples: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Write the examples of a request's body: by name, a summary and the body."""
    written = {name: {"summary": summary, "value": body} for name, (summary, body) in examples.items()}
    return {"requestBody": {"content": {"application/json": {"examples": written}}}}


SEARCH_EXAMPLES = _examples(
    shortest=("A bare prompt", {"prompt": PROMPT}),
    budget=(
        "A task, an algorithm and a budget",
        {
            "prompt": f"{PROMPT}\n",
            "task": {"name": "countdown", "problem": {"numbers": [3, 5, 7, 8], "target": 24}},
            "search": {"algorithm": "mcts", "budget": {"simulations": 64, "tokens": 1000}},
            "seed": 7,
        },
    ),
    stream=("Events while it searches", {"prompt": PROMPT, "stream": True}),
)
BATCH_EXAMPLES = _examples(
    shortest=(
        "Prompts that share a budget",
        {"prompts": [{"prompt": PROMPT}, {"prompt": "2 4 6 9 to 31"}], "budget": {"tokens": 1200}},
    ),
    stream=(
        "Each answer as it is settled",
        {"prompts": [{"prompt": PROMPT}], "budget": {"tokens": 600, "seconds": 5}, "stream": True},
    ),
)
CONTINUE_EXAMPLES = _examples(
    more=("With more tokens", {"budget": {"tokens": 3000}}),
    rest=("With what an interrupted search had left", {}),
)
COMPLETION_EXAMPLES = _examples(
    plain=("The policy alone", {"model": "countdown-tiny", "prompt": f"{PROMPT}\n", "max_tokens": 40}),
    stream=("The policy alone, as it writes", {"prompt": f"{PROMPT}\n", "max_tokens": 40, "stream": True}),
    search=(
        "The best answer of a tree",
        {"model": "countdown-tiny", "prompt": f"{PROMPT}\n", "search": {"budget": {"tokens": 1000}}},
    ),
)
CHAT_EXAMPLES = _examples(
    search=(
        "The best answer of a tree",
        {
            "model": "countdown-tiny",
            "messages": [{"role": "user", "content": PROMPT}],
            "search": {"budget": {"tokens": 1000}},
        },
    ),
    stream=(
        "The same in chunks, comments while it searches",
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "search": {"budget": {"tokens": 1000}},
            "stream": True,
        },
    ),
)

ERRORS = {
    400: "A field is wrong; `param` says which",
    401: "No API key, or an unknown one",
    403: "The API key lacks a scope",
    404: "No such thing, or not yours",
    409: "The state of things forbids it now",
    413: "The body is too large",
    422: "The Idempotency-Key was used with another body",
    429: "This API key's searches fill its share; see Retry-After",
    500: "The server failed",
    503: "Full, shutting down, or an engine is dead; see Retry-After",
    504: "The deadline came before any answer",
}
ALWAYS = (500,)
BY_PATH: dict[tuple[str, str], tuple[int, ...]] = {
    ("/v1/search", "post"): (400, 404, 409, 413, 422, 429, 503, 504),
    ("/v1/search/batch", "post"): (400, 404, 409, 413, 422, 429, 503, 504),
    ("/v1/search/batch/{batch_id}/cancel", "post"): (400, 404, 503, 504),
    ("/v1/search/{search_id}", "get"): (400, 404, 409, 503),
    ("/v1/search/{search_id}/cancel", "post"): (400, 404, 409, 503),
    ("/v1/search/{search_id}/continue", "post"): (400, 404, 409, 413, 422, 429, 503, 504),
    ("/v1/completions", "post"): (400, 404, 409, 413, 422, 429, 503, 504),
    ("/v1/chat/completions", "post"): (400, 404, 409, 413, 422, 429, 503, 504),
    ("/v1/responses", "post"): (400, 404, 409, 413, 429, 503, 504),
    ("/v1/completions/{id}/cancel", "post"): (400, 404),
    ("/v1/chat/completions/{id}/cancel", "post"): (400, 404),
    ("/v1/responses/{id}/cancel", "post"): (400, 404),
    ("/tokenize", "post"): (400, 404, 413, 503),
    ("/detokenize", "post"): (400, 404, 413, 503),
    ("/tokenizer_info", "get"): (503,),
    ("/v1/value", "post"): (400, 404, 413, 503),
    ("/v1/trees", "get"): (400, 503),
    ("/v1/trees/{tree}", "get"): (400, 404, 503),
    ("/v1/trees/{tree}", "delete"): (400, 404, 503),
    ("/v1/trees/{tree}/feedback", "post"): (400, 404, 413, 503),
    ("/v1/trees/{tree}/branch", "post"): (400, 404, 409, 413, 422, 429, 503, 504),
    ("/v1/consumers", "get"): (503,),
    ("/v1/consumers/{name}", "get"): (400, 404, 503),
    ("/v1/consumers/{name}", "delete"): (400, 404, 409, 503),
    ("/v1/consumers/{name}", "put"): (400, 409, 413, 503),
    ("/v1/models", "get"): (),
    ("/v1/models/{name}", "get"): (400, 404),
    ("/v1/releases", "get"): (503,),
    ("/livez", "get"): (),
    ("/readyz", "get"): (503,),
    ("/health", "get"): (503,),
    ("/version", "get"): (),
    ("/metrics", "get"): (),
}
"""The errors of each route beside those of its key."""
COMPONENTS = {
    "ramify__api__openai__requests__": "ramify__api__wire_openai__",
    "ramify__api__openai__replies__": "ramify__api__wire_openai_replies__",
}
"""How the names of schemas begin that FastAPI tells apart by their module, and what is published: clients' generated
types carry these names, so they do not change when a module moves."""
UNROUTED: dict[str, tuple[type[BaseModel], ...]] = {
    "/v1/search": (Started, Progressed),
    "/v1/search/batch": (BatchStarted, BatchProgressed, BatchCompleted),
    "/v1/trees": (LogRecord,),
}
"""Models that are no route's whole answer, by path: the events of a stream, the lines of the log."""


def document(app: FastAPI) -> dict[str, Any]:
    """Describe an application: FastAPI's document, with our errors, keys and published names in it."""
    # names of schemas that the module of their class tells apart
    text = json.dumps(
        get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    )
    for module, published in COMPONENTS.items():
        text = text.replace(module, published)
    content: dict[str, Any] = json.loads(text)
    schemas = content["components"]["schemas"]

    # our errors in place of FastAPI's own; events and lines, which are no route's whole answer
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    unrouted: list[type[BaseModel]] = [ErrorBody]
    for path in content["paths"]:
        unrouted += UNROUTED.get(path, ())
    for model in unrouted:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas.update(schema.pop("$defs", {}), **{model.__name__: schema})

    # what each route asks of the key, and its errors
    content["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for operations in content["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for route in app.routes:
        if isinstance(route, ScopedRoute) and route.include_in_schema:
            for method in route.methods:
                _describe(content["paths"][route.path_format][method.lower()], route, method.lower())
    return content


def _describe(operation: dict[str, Any], route: ScopedRoute, method: str) -> None:
    open_to_all = "open" in route.scopes
    keyed = () if open_to_all else (401,) if "any" in route.scopes else (401, 403)
    for status in sorted({*keyed, *ALWAYS, *BY_PATH[(route.path_format, method)]}):
        operation["responses"][str(status)] = {
            "description": ERRORS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
        }
    if not open_to_all:
        operation["security"] = [{"key": []}]
        operation["x-ramify-scopes"] = list(route.scopes)
