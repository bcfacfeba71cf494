"""Which figures after a reload are those of the weights that were published (`ramify.service.canary`)."""

from __future__ import annotations

import random

import pytest

from ramify.engines import Measurement
from ramify.service.canary import check, same
from ramify.weights import Probe

TOLERANCE = 0.1
TOKENS = 30


def probe(*logprobs: float, value: float = 0.5) -> Probe:
    return Probe(prompt=(1,), continuation=(2,) * len(logprobs), logprobs=logprobs, value=value)


def measured(*logprobs: float, value: float = 0.5) -> Measurement:
    return Measurement(logprobs, (False,) * len(logprobs), value)


FIGURES = tuple(random.Random(0).uniform(-3, 0) for _ in range(TOKENS))


def noisy(seed: int, share: float) -> tuple[float, ...]:
    """Figures of the same weights by another kernel: off by a share of the tolerance, as a normal distribution."""
    rng = random.Random(seed)
    return tuple(f + rng.gauss(0, share * TOLERANCE * max(1.0, abs(f))) for f in FIGURES)


@pytest.mark.parametrize("seed", range(50))
def test_the_same_weights_in_bfloat16_agree_though_their_worst_token_is_beyond_the_tolerance(
    seed: int,
) -> None:
    figures = noisy(seed, share=1 / 3)
    report = check([probe(*FIGURES)], [measured(*FIGURES)], [[measured(*figures)]], TOLERANCE)
    assert report.probes == 1
    same([measured(*FIGURES)], [measured(*figures)], TOLERANCE, "differ")


@pytest.mark.parametrize("seed", range(50))
def test_weights_that_are_off_by_as_much_as_the_tolerance_throughout_are_refused(seed: int) -> None:
    figures = noisy(seed, share=1)
    with pytest.raises(RuntimeError, match="not the weights that were published"):
        check([probe(*FIGURES)], [measured(*FIGURES)], [[measured(*figures)]], TOLERANCE)
    with pytest.raises(RuntimeError, match="differ"):
        same([measured(*FIGURES)], [measured(*figures)], TOLERANCE, "differ")


@pytest.mark.parametrize(
    "wrong",
    [
        measured(*FIGURES[:-1], FIGURES[-1] - 10),  # one token, far off
        measured(*FIGURES, value=0.65),  # the head alone is another
        measured(*FIGURES[:-1], float("nan")),
    ],
)
def test_one_figure_alone_may_tell_of_other_weights(wrong: Measurement) -> None:
    with pytest.raises(RuntimeError, match="not the weights that were published"):
        check([probe(*FIGURES)], [measured(*FIGURES)], [[wrong]], TOLERANCE)


@pytest.mark.parametrize("tokens", [1, 4])
def test_of_a_few_tokens_each_is_held_to_the_tolerance(tokens: int) -> None:
    published, rest = FIGURES[:tokens], FIGURES[1:tokens]
    limit = TOLERANCE * max(1.0, abs(published[0]))
    near, far = (measured(published[0] - share * limit, *rest) for share in (0.9, 1.1))
    check([probe(*published)], [near], [[near]], TOLERANCE)
    with pytest.raises(RuntimeError, match="not the weights that were published"):
        check([probe(*published)], [near], [[far]], TOLERANCE)
