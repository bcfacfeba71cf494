"""The Python client of Ramify: `Client` and `Admin`, and `AsyncClient` and `AsyncAdmin` with the same methods::

    from ramify_client import BadRequest, Client

    with Client("http://127.0.0.1:8000") as ramify:
        result = ramify.search("3 5 7 8 to 24", search={"algorithm": "mcts", "budget": {"tokens": 1000}})
        print(result.answer.text, result.usage.completion_tokens)
        try:
            ramify.search("3 5 7 8 to 24", search={"width": 0})
        except BadRequest as error:
            print(error.param, error)

Read `client` first: a method for each call. Below it: `calls` (each call as data), `results` (each answer, typed),
`streaming` (events and log records out of bytes), `retries`, `errors`, `configuration`. `tree` types a logged tree;
`aio` is `client` with `await`.
"""

from ramify_client.aio import AsyncAdmin, AsyncClient
from ramify_client.client import Admin, Client
from ramify_client.errors import (
    BadRequest,
    Conflict,
    ConnectionFailed,
    InvalidAnswer,
    NotFound,
    RamifyError,
    RateLimited,
    RequestTimeout,
    ResponseError,
    SearchError,
    ServerError,
    Unauthorized,
)

__all__ = [
    "Admin",
    "AsyncAdmin",
    "AsyncClient",
    "BadRequest",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "InvalidAnswer",
    "NotFound",
    "RamifyError",
    "RateLimited",
    "RequestTimeout",
    "ResponseError",
    "SearchError",
    "ServerError",
    "Unauthorized",
]
