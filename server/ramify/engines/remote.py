"""A scorer on another server: vLLM's `/classify` and `/pooling`, or any endpoint that answers texts with values."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ramify.engine_options import ScorerOptions
from ramify.engines.errors import EngineError, EngineStartFailed, ScorerUnreachable
from ramify.engines.formats import StateReader, Write
from ramify.engines.http import FIRST_WAIT, MOST_BYTES, PASSING, bearer, read_key, read_url
from ramify.engines.judges import Reading, read_judge
from ramify.engines.limiter import EngineLimiter
from ramify.engines.scorer import chains, log_odds, logit, sigmoid, written
from ramify.engines.tokenizer import Tokenizer
from ramify.races import all_of
from ramify.search.records import Score, State

Body = Callable[[Sequence[Any]], Mapping[str, Any]]
Read = Callable[[Any], Sequence[Any]]
AT_ONCE = 64
"""Inputs of one request."""
MOST_WAITING = 4096
"""Requests that may wait for their turn."""


@dataclass(frozen=True, slots=True)
class RemoteForm:
    """Whom to ask and with which key; how states become inputs of the other server, and its replies judgements."""

    url: httpx.URL
    key: str | None
    read: StateReader
    """Reads a state as text, for an endpoint of values."""
    write: Write | None
    """Makes token ids of it, for vLLM; `None`: the policy's own."""
    reading: Reading


def read_remote(options: ScorerOptions, policy: Tokenizer) -> RemoteForm:
    """Prepare what is sent, by the settings, the key's file and the folder of the model's tokenizer.

    Raises `EngineStartFailed`."""
    assert options.url is not None
    url, key = read_url(options.url, "scorer.url"), read_key(options.key, options.key_file, "scorer")
    read = StateReader(policy)
    if options.model is not None:
        judge = read_judge(options, policy)
        return RemoteForm(url, key, read, judge.write, judge.reading)
    if options.format not in ("auto", "tokens"):
        raise EngineStartFailed(
            f"scorer.format {options.format} needs the model's tokenizer: name a folder with it and config.json "
            "(setting scorer.model)"
        )
    if options.label is not None and not options.label.isdecimal():
        raise EngineStartFailed(
            f"scorer.label {options.label!r} is a name: give its number, or the folder with config.json (scorer.model)"
        )
    return RemoteForm(url, key, read, None, Reading(label=int(options.label or 0)))


class RemoteScorer:
    """`search.protocols.Scorer` over HTTP: value = sigmoid(a · logit + b); the logit of a value v is
    log(v / (1 - v))."""

    def __init__(
        self,
        options: ScorerOptions,
        form: RemoteForm,
        release: Callable[[], str],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """release: the id that scores carry. transport: in place of the network."""
        self._options = options
        self._form = form
        self._release = release
        self._limiter = EngineLimiter(options.parallel, MOST_WAITING)
        self._client = httpx.AsyncClient(
            headers=bearer(form.key),
            limits=httpx.Limits(max_connections=options.parallel),
            timeout=options.seconds,
            transport=transport,
        )
        self._place = form.url.netloc.decode()
        """The server as errors name it."""

    async def score(self, sequences: Sequence[Sequence[int]]) -> list[Score]:
        """Judge states within the deadline of the settings.

        Raises `ScorerUnreachable` if the server did not answer by then, `EngineError` if its answer is none."""
        try:
            async with asyncio.timeout(self._options.seconds):
                logits = await self._logits(sequences)
        except TimeoutError:
            raise ScorerUnreachable(
                f"the scorer at {self._place} did not answer within {self._options.seconds:g} s"
            ) from None
        a, b = self._options.a, self._options.b
        return [Score(sigmoid(a * logit + b), self._release()) for logit in logits]

    async def check(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Have one answer judged. Raises `EngineStartFailed` if it cannot be."""
        ends = (len(prompt), len(prompt) + len(answer))
        try:
            await self.score([State([*prompt, *answer], ends)])
        except EngineError as error:
            raise EngineStartFailed(f"the scorer cannot be used: {error}") from error

    async def close(self) -> None:
        await self._client.aclose()

    # -- what is asked ------------------------------------------------------------------------------------------------

    async def _logits(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        if self._options.api == "values":
            items = await asyncio.to_thread(lambda: [self._item(sequence) for sequence in sequences])
            values = await self._in_parts(items, lambda part: {"answers": part}, _values)
            return [logit(value) for value in values]
        inputs = await written(self._form.write, sequences)
        if self._options.api == "classify":
            rows = await self._in_parts(inputs, _classify_body, _class_logits)
            return [self._logit(row) for row in rows]
        return await self._pooled(inputs)

    def _item(self, sequence: Sequence[int]) -> Mapping[str, Any]:
        messages, actions = self._form.read(sequence)
        return {"messages": list(messages), "steps": actions}

    async def _pooled(self, inputs: Sequence[Sequence[int]]) -> list[float]:
        """Ask for the judgement at every token, or at every tag as a server may choose: one input for all that begin
        it."""
        groups = chains(inputs)
        found = await self._in_parts([inputs[group[0]] for group in groups], _pooling_body, _pooled_logits)
        logits = [0.0] * len(inputs)
        for group, rows in zip(groups, found, strict=True):
            whole = inputs[group[0]]
            for i in group:
                place, tag = len(inputs[i]), inputs[i][-1]
                if len(rows) != len(whole):
                    if tag != whole[-1] or len(rows) != whole.count(tag):
                        raise EngineError(
                            f"the scorer at {self._place} gave {len(rows)} judgements for {len(whole)} tokens"
                        )
                    place = inputs[i].count(tag)
                logits[i] = self._logit(rows[place - 1])
        return logits

    def _logit(self, row: Sequence[float]) -> float:
        label = self._form.reading.label
        if label >= len(row):
            raise EngineError(
                f"the scorer at {self._place} has {len(row)} labels, and scorer.label is {label}"
            )
        if len(row) > 1 and self._options.label is None and self._form.reading.labels == 1:
            raise EngineError(
                f"the scorer at {self._place} has {len(row)} labels: say which means right (setting scorer.label)"
            )
        return log_odds(row, label)

    # -- how it is sent -----------------------------------------------------------------------------------------------

    async def _in_parts(self, items: Sequence[Any], body: Body, read: Read) -> list[Any]:
        """Send `AT_ONCE` items a request, and return what `read` finds for each in the replies."""
        parts = [items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE)]
        replies = await all_of(self._post(body(part)) for part in parts)
        found: list[Any] = []
        for part, reply in zip(parts, replies, strict=True):
            try:
                rows = read(reply)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise EngineError(
                    f"the reply of the scorer at {self._place} is not of the form that scorer.api "
                    f"{self._options.api} has"
                ) from error
            if len(rows) != len(part):
                raise EngineError(
                    f"the scorer at {self._place} gave {len(rows)} judgements for {len(part)} answers"
                )
            found += rows
        return found

    async def _post(self, body: Mapping[str, Any]) -> Any:
        """Send one request, and again after what may pass."""
        if self._options.served is not None:
            body = {"model": self._options.served, **body}
        async with self._limiter.slots(1):
            for attempt in range(self._options.retries + 1):
                problem = "cannot be reached"
                wait = FIRST_WAIT * 2**attempt * random.uniform(0.75, 1.25)
                try:
                    async with self._client.stream("POST", self._form.url, json=body) as reply:
                        if reply.status_code == 200:
                            return await self._json(reply)
                        problem = f"answered {reply.status_code}"
                        if reply.status_code not in PASSING:
                            raise EngineError(f"the scorer at {self._place} {problem}")
                        asked = reply.headers.get("retry-after", "")
                        wait = max(wait, float(asked) if asked.isdecimal() else 0.0)
                except httpx.TransportError:
                    pass
                if attempt == self._options.retries or wait >= self._options.seconds:
                    break
                await asyncio.sleep(wait)  # in its slot: who is overloaded is asked less
            raise ScorerUnreachable(f"the scorer at {self._place} {problem}, {attempt + 1} times")

    async def _json(self, reply: httpx.Response) -> Any:
        content = bytearray()
        try:
            async for chunk in reply.aiter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise EngineError(
                        f"the reply of the scorer at {self._place} has more than {MOST_BYTES} bytes"
                    )
            return json.loads(content)
        except (httpx.DecodingError, ValueError) as error:
            raise EngineError(f"the reply of the scorer at {self._place} is not valid JSON") from error


def _classify_body(inputs: Sequence[Any]) -> dict[str, Any]:
    return {"input": inputs, "use_activation": False}


def _pooling_body(inputs: Sequence[Any]) -> dict[str, Any]:
    return {"input": inputs, "task": "token_classify", "use_activation": False}


def _class_logits(reply: Any) -> list[list[float]]:
    return [_finite(item["probs"]) for item in sorted(reply["data"], key=lambda item: item["index"])]


def _pooled_logits(reply: Any) -> list[list[list[float]]]:
    found = sorted(reply["data"], key=lambda item: item["index"])
    return [[_finite(row if isinstance(row, list) else [row]) for row in item["data"]] for item in found]


def _values(reply: Any) -> list[float]:
    values = _finite(reply["values"])
    if not all(0 <= value <= 1 for value in values):
        raise ValueError("a value is outside [0, 1]")
    return values


def _finite(numbers: Sequence[Any]) -> list[float]:
    found = [float(number) for number in numbers]
    if not found or not all(map(math.isfinite, found)):
        raise ValueError("a number is missing, or is none")
    return found
