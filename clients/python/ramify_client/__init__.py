"""The Python client of Ramify: `Client` and `Admin`, and `AsyncClient` and `AsyncAdmin` with the same methods."""

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
