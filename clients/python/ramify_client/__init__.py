"""The Python client of Ramify: `Client`, and `AsyncClient` with the same methods."""

from ramify_client.aio import AsyncClient
from ramify_client.client import Client
from ramify_client.errors import (
    BadRequest,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InvalidAnswer,
    NotFound,
    RamifyError,
    RateLimited,
    RequestTimeout,
    ResponseError,
    SearchError,
    ServerError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unprocessable,
)

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Forbidden",
    "InvalidAnswer",
    "NotFound",
    "RamifyError",
    "RateLimited",
    "RequestTimeout",
    "ResponseError",
    "SearchError",
    "ServerError",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
]
