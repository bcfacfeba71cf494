"""Log-probabilities and values of given texts under the weights that are loaded: what a canary is compared with.

Each token of a continuation is one request: the text before it, one token to draw, and the likeliest next tokens asked
for with it. That is the very path of a search: it reads the engine's prefix cache and its batches, so stale weights and
stale cached prefixes both show. Two shorter ways were not taken (2026-11-24): `prompt_logprobs` gives a whole text in
one request, but vLLM does not read the prefix cache for it; `logprob_token_ids` asks for one token, but in vLLM 0.32's
sampler its answer takes the place of what every other request of the same batch asked for.

A text shorter than a KV block (32 tokens on a CPU) is never cached, so `long_text` makes one of several blocks out of
the probes' own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramify.engines.ports import Engine, RawSample, SampleParams, SampleRequest, plain_cancellation
from ramify.engines.scorer import EngineScorer

TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference between two computations of one figure, relative to it if it is above 1 (docs/operations.md)."""
MOST_TOKENS = 4096
"""Next tokens asked for; the log-probability of a token beyond them is at most that of the last."""
SHORT = 64
"""Tokens up to which texts are judged together."""
LONG = 160
"""Tokens of the text by which the prefix cache is looked at: five blocks on a CPU, ten on a GPU."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text to measure, as token ids."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        return self.prompt + self.continuation


@dataclass(frozen=True, slots=True)
class Measurement:
    """The figures of one text."""

    logprobs: tuple[float, ...]
    """Log-probability of each token of the continuation: natural, temperature 1, no truncation."""
    bounds: tuple[bool, ...]
    """True for a token that was not among the likeliest asked for: its log-probability is at most the figure."""
    value: float | None
    """The calibrated judgement of the whole text by value model or value head, [0, 1]; `None` without either."""


async def measure(
    engine: Engine,
    scorer: EngineScorer | None,
    texts: Sequence[Text],
    calibration: tuple[float, float],
    vocabulary: int,
    adapter: str | None = None,
) -> list[Measurement]:
    """The figures of `texts`, in order. calibration: (a, b) of the values. vocabulary: how many tokens there are.
    adapter: with which the policy is measured.

    Raises what the engines raise."""
    params = SampleParams(max_tokens=1, temperature=1.0, top=min(vocabulary, MOST_TOKENS))
    requests = [
        SampleRequest([*text.prompt, *text.continuation[:i]], params, seed=i, adapter=adapter)
        for text in texts
        for i in range(len(text.continuation))
    ]
    with plain_cancellation():
        drawn = iter(await engine.generate(requests))
    measurements = []
    for text, value in zip(texts, await _values(scorer, texts, calibration), strict=True):
        figures = [_figure(next(drawn), token) for token in text.continuation]
        measurements.append(Measurement(tuple(f for f, _ in figures), tuple(b for _, b in figures), value))
    return measurements


async def _values(
    scorer: EngineScorer | None, texts: Sequence[Text], calibration: tuple[float, float]
) -> list[float | None]:
    """A text of several blocks is judged in a call of its own: together with others that it begins with it would be
    judged in one pass, which does not read the prefix cache."""
    if scorer is None:
        return [None] * len(texts)
    short = [i for i, text in enumerate(texts) if len(text.whole) <= SHORT]
    values: dict[int, float] = {}
    for group in (short, *([i] for i in range(len(texts)) if i not in short)):
        judged = await scorer.values([texts[i].whole for i in group], calibration)
        values |= dict(zip(group, judged, strict=True))
    return [values[i] for i in range(len(texts))]


def _figure(drawn: RawSample, token: int) -> tuple[float, bool]:
    known = dict(drawn.top)
    if token in known:
        return known[token], False
    return min(known.values()), True


def long_text(texts: Sequence[Text], longest: int) -> Text | None:
    """A text of several KV blocks out of the tokens of `texts`, at most `longest` tokens; `None` without texts."""
    tokens: list[int] = []
    while texts and len(tokens) < LONG:
        for text in texts:
            tokens += text.whole
    tokens = tokens[: min(LONG, longest - 1)]
    return Text(tuple(tokens[:-1]), tuple(tokens[-1:])) if len(tokens) > 1 else None
