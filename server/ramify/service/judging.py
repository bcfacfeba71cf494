"""Judge partial answers with the scorers, for POST /v1/value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.engines.errors import EngineError
from ramify.search.protocols import EngineDead
from ramify.search.records import Score, State
from ramify.search.scorers import Scorers
from ramify.service.errors import (
    BadRequest,
    ServiceError,
    from_engine,
    no_value_model,
    require_token_ids,
    unknown_model,
)
from ramify.service.ports import Engines
from ramify.settings import RequestCaps

Text = str | Sequence[int]
"""Text, or token ids."""


@dataclass(frozen=True, slots=True)
class ValueResult:
    """Judgements of continuations, in their order."""

    values: list[float]
    scores: list[dict[str, Score]]
    """Judgements of each scorer, by its name; of a single one without a name too."""
    prompt_tokens: int
    tokens: int
    """Tokens of all scored sequences together."""


async def judge_continuations(
    engines: Engines, caps: RequestCaps, model: str | None, prompt: Text, continuations: Sequence[Text]
) -> ValueResult:
    """Judge each continuation of the prompt, in order. Raises `ServiceError`."""
    if model is not None and model != engines.serving.name:
        raise unknown_model(model, engines.serving.name)
    scorers = Scorers.of(engines.scorer)
    if not scorers.weighing:
        raise no_value_model("continuations")
    _check_size(caps, engines.serving.vocabulary, prompt, continuations)
    head = engines.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    tails = [_continued(engines, text) for text in continuations]
    sequences = [State([*head, *tail], (len(head), len(head) + len(tail))) for tail in tails]
    for i, sequence in enumerate(sequences):
        if not sequence:
            raise BadRequest("prompt and continuation are both empty", param=f"continuations.{i}")
        if len(sequence) > engines.max_model_len:
            raise BadRequest(
                f"has {len(sequence)} tokens with its prompt; the model takes {engines.max_model_len}",
                param=f"continuations.{i}",
            )
    try:
        async with asyncio.timeout(caps.deadline_seconds):
            found = await _ask(engines, sequences)
    except TimeoutError as error:
        raise ServiceError("no_answer", "the deadline came before the values were computed") from error
    except (EngineDead, EngineError) as error:
        refusal = from_engine(error, "value", "continuations")
        raise refusal or ServiceError("generation_failed", str(error)[:500]) from error
    scores = [found[sequence] for sequence in sequences]
    values = [scorers.value(one) or 0.0 for one in scores]
    return ValueResult(values, scores, len(head), sum(map(len, sequences)))


async def _ask(engines: Engines, sequences: Sequence[State]) -> dict[tuple[int, ...], dict[str, Score]]:
    """Ask under the release that is served, and again if another took its place meanwhile: a request that was held
    while weights were replaced is answered by the new ones."""
    while True:
        with engines.lease() as leased:
            scorers = Scorers.of(engines.scorer)
            found = await scorers.ask(sequences, sequences)
        if engines.serving is leased:
            return found


def _continued(engines: Engines, text: Text) -> list[int]:
    return engines.tokenizer.encode_continuation(text) if isinstance(text, str) else list(text)


def _check_size(caps: RequestCaps, vocabulary: int, prompt: Text, continuations: Sequence[Text]) -> None:
    if len(continuations) > caps.continuations:
        raise BadRequest(
            f"too many: {len(continuations)} > {caps.continuations}",
            param="continuations",
        )
    for param, text in [
        ("prompt", prompt),
        *((f"continuations.{i}", t) for i, t in enumerate(continuations)),
    ]:
        if not isinstance(text, str):
            require_token_ids(text, vocabulary, param)
        if len(text) > caps.prompt_chars:
            raise BadRequest(f"too long: {len(text)} > {caps.prompt_chars}", param=param)
