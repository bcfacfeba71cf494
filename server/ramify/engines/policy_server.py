"""The vLLM server that has the policy, over HTTP: requests, streams, deadlines, and its errors as ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import httpx

from ramify.engine_options import PolicyServerOptions
from ramify.engines.errors import EngineError, PolicyUnreachable, RequestRefused
from ramify.engines.http import MOST_BYTES, PASSING, bearer, read_key, read_url

Result = TypeVar("Result")
SPARE = 16
"""Connections beside those of draws: for probes and for what counts tokens."""
REFUSALS = {400, 413, 422}
"""Statuses of a request that would be refused again."""
SHORT = 300
"""Characters of a server's own words in an error."""


class PolicyServer:
    """A client of one vLLM server. Make it in a running event loop; end it with `close`."""

    def __init__(
        self,
        options: PolicyServerOptions,
        setting: str = "policy_server",
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """setting: the table of the options, for errors. transport: in place of the network.

        Raises `EngineStartFailed` for an address or a key that is none."""
        assert options.url is not None
        url = read_url(options.url.rstrip("/").removesuffix("/v1"), f"{setting}.url")
        key = read_key(options.key, options.key_file, setting)
        self.place = url.netloc.decode()
        """The server as errors name it."""
        self.seconds = options.seconds
        self._key = key
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=bearer(key),
            limits=httpx.Limits(max_connections=options.parallel + SPARE),
            timeout=None,  # noqa: S113  # each wait below has its deadline
            transport=transport,
        )

    async def ask(
        self, path: str, body: Mapping[str, Any] | None = None, seconds: float | None = None
    ) -> Any:
        """Return the reply to POST `path`, or to GET without a body.

        seconds: longest time of it; `None`: that of the settings. Raises `RequestRefused`, `PolicyUnreachable` or
        another `EngineError`. Cancelled, it closes the connection, and vLLM aborts the work."""
        end = asyncio.get_running_loop().time() + (seconds or self.seconds)
        method = "GET" if body is None else "POST"
        return self._parsed(await self._before(end, self._whole(method, path, body)))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a streamed reply to POST `path`, each within the seconds of the settings after the one
        before. Close it to have vLLM abort the work. Raises as `ask` does."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        reply = await self._before(end, self._begun("POST", path, body))
        try:
            async with aclosing(_data(reply)) as lines:
                # To the end, past [DONE]: only then is the connection used again.
                while (data := await self._before(end, anext(lines, None))) is not None:
                    if data == b"[DONE]":
                        continue
                    event = self._parsed(data)
                    if (status := _status(event)) is not None:
                        raise self._problem(status, data)
                    end = loop.time() + self.seconds
                    yield event
        finally:
            await reply.aclose()

    async def close(self) -> None:
        await self._client.aclose()

    # -- how it is sent -----------------------------------------------------------------------------------------------

    async def _begun(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """Return a reply whose head says that all is well, and whose body is still to be read."""
        request = self._client.build_request(method, path, json=body)
        reply = await self._client.send(request, stream=True)
        if reply.status_code == 200:
            return reply
        try:
            raise self._problem(reply.status_code, await _content(reply))
        finally:
            await reply.aclose()

    async def _whole(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        reply = await self._begun(method, path, body)
        try:
            return await _content(reply)
        finally:
            await reply.aclose()

    async def _before(self, end: float, work: Awaitable[Result]) -> Result:
        """Await `work` until the loop's time is `end`, and raise what stops it as ours."""
        try:
            async with asyncio.timeout_at(end):
                return await work
        except TimeoutError:
            raise PolicyUnreachable(
                f"the policy's server at {self.place} sent nothing in the time that it has"
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise PolicyUnreachable(
                f"the policy's server at {self.place} cannot be reached ({type(error).__name__})"
            ) from error

    def _parsed(self, content: bytes | None) -> Any:
        try:
            return json.loads(content or b"")
        except ValueError as error:
            raise EngineError(
                f"the reply of the policy's server at {self.place} is not valid JSON"
            ) from error

    def _problem(self, status: int, content: bytes) -> Exception:
        """Return vLLM's error as ours."""
        message, param = _told(content)
        if self._key is not None:
            message = message.replace(self._key, "(key)")
        message = message[:SHORT]  # no sooner: half a key would stay
        said = f"the policy's server at {self.place} answered {status}" + (f": {message}" if message else "")
        if status in PASSING:
            return PolicyUnreachable(said)
        return RequestRefused(said, param) if status in REFUSALS else EngineError(said)


async def _content(reply: httpx.Response) -> bytes:
    content = bytearray()
    async for part in reply.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            raise EngineError(f"a reply of the policy's server has more than {MOST_BYTES} bytes")
    return bytes(content)


async def _data(reply: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield what stands behind `data:` in Server-Sent Events."""
    left = b""
    async for part in reply.aiter_bytes():
        *lines, left = (left + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
        if len(left) > MOST_BYTES:
            raise EngineError(f"an event of the policy's server has more than {MOST_BYTES} bytes")


def _status(event: Any) -> int | None:
    """Return the status of an error that stands in a stream; `None` if it is none."""
    error = event.get("error") if isinstance(event, dict) else None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _told(content: bytes) -> tuple[str, str | None]:
    """Return the message of a server's error in one line, and the field that it names."""
    try:
        error = json.loads(content)["error"]
        if isinstance(error, str):  # as vLLM refuses a key
            error = {"message": error}
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", None
    return " ".join(message.split()), param if isinstance(param, str) else None
