"""The Python client of Ramify: `Client` and `Admin`, and `AsyncClient` and `AsyncAdmin` with the same methods."""

from ramify_client.aio import AsyncAdmin, AsyncClient
from ramify_client.client import Admin, Client
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
    "Admin",
    "AsyncAdmin",
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
