from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from fixtures_engines import LiveEngines, until
from ramify.engines import Engines, RequestRefused
from ramify.search.records import Score

TOLERANCE = 1e-4
"""Largest difference of a value: float32 on both sides, summed in another order."""
TEXTS = [
    "3 5 7 8 to 24\n",
    "3 5 7 8 to 24\n8 * 3 = 24\n",
    "1 2 to 3\n1 + 2 = 3\n",
    "9",
    "4 4 4 4 to 16\n4 + 4 = 8\n8",
]


@pytest.fixture(scope="module")
def reference(live_engines: LiveEngines) -> torch.nn.Module:
    path = live_engines.config.value
    return AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()  # type: ignore[no-any-return]


def expected(reference: torch.nn.Module, sequences: Sequence[Sequence[int]]) -> list[float]:
    """One unpadded forward for each sequence: nothing can gather at the wrong end."""
    with torch.no_grad():
        return [float(reference(torch.tensor([list(s)])).logits.float().sigmoid()) for s in sequences]


def score(live: LiveEngines, sequences: Sequence[Sequence[int]]) -> list[Score]:
    return live.run(live.engines.scorer.score(sequences))


def test_values_agree_with_transformers_for_sequences_of_different_lengths_in_one_batch(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module
) -> None:
    sequences = [engines.tokenizer.encode(text) for text in TEXTS]
    assert len({len(s) for s in sequences}) > 3
    scores = score(live_engines, sequences)
    assert [s.value for s in scores] == pytest.approx(expected(reference, sequences), abs=TOLERANCE)
    assert all(0 <= s.value <= 1 and s.release == "v000001" for s in scores)


def test_values_stand_in_the_order_of_the_sequences(live_engines: LiveEngines, engines: Engines) -> None:
    sequences = [engines.tokenizer.encode(text) for text in TEXTS]
    forward, backward = score(live_engines, sequences), score(live_engines, sequences[::-1])
    assert [s.value for s in forward] == pytest.approx([s.value for s in backward[::-1]], abs=TOLERANCE)


def test_a_cached_prefix_changes_no_value(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module
) -> None:
    """Sequences over the 32 tokens of a block, each the beginning of the next, sent one by one."""
    long = engines.tokenizer.encode(TEXTS[0] + "8 * 3 = 24\n" * 15)
    sequences = [long[:length] for length in (31, 33, 64, 65, len(long))]
    want = expected(reference, sequences)
    for _ in range(2):  # the second time everything is cached
        got = [score(live_engines, [sequence])[0].value for sequence in sequences]
        assert got == pytest.approx(want, abs=TOLERANCE)


def test_the_steps_of_an_answer_judged_in_one_pass_get_the_values_that_each_gets_alone(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module
) -> None:
    whole = engines.tokenizer.encode(TEXTS[0] + "8 * 3 = 24\n7 - 5 = 2\n24 + 2 = 26\n")
    sequences = [whole[:length] for length in range(len(whole), 7, -3)]
    assert engines.by_role["value"].causal
    assert len(engines.scorer.named[""].scorer._jobs(sequences)) == 1
    got = [s.value for s in score(live_engines, [*sequences, engines.tokenizer.encode("9")])]
    assert got[:-1] == pytest.approx(expected(reference, sequences), abs=TOLERANCE)


def test_a_sequence_that_is_too_long_is_refused_and_nothing_is_left_behind(
    live_engines: LiveEngines, engines: Engines
) -> None:
    too_long = [engines.tokenizer.a_token] * (engines.max_model_len + 1)
    with pytest.raises(RequestRefused, match="value engine refuses"):
        score(live_engines, [[engines.tokenizer.a_token], too_long])


def test_cancelled_scoring_leaves_nothing_behind(live_engines: LiveEngines, engines: Engines) -> None:
    sequences = [engines.tokenizer.encode(TEXTS[1])] * 100

    async def go() -> None:
        task = asyncio.create_task(engines.scorer.score(sequences))
        await until(lambda: engines.stats()["value_running"] + engines.stats()["value_waiting"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert type(caught.value) is asyncio.CancelledError, "asyncio.timeout knows no subclasses"

    live_engines.run(go())
