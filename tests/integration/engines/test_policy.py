from __future__ import annotations

import asyncio
import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from fixtures_engines import LiveEngines, until
from ramify.engines import Engines, RequestRefused, SampleParams, SampleRequest
from ramify.search.departures import Known, depart
from ramify.search.protocols import SampleAborted
from ramify.search.records import Continuation, Departure, Sampling

PROMPT = "3 5 7 8 to 24\n"
TOLERANCE = 1e-4
"""Largest difference of a log-probability: the engine and the reference both compute in float32, in another order."""


@pytest.fixture(scope="module")
def reference(live_engines: LiveEngines) -> torch.nn.Module:
    """The same weights in plain transformers."""
    return AutoModelForCausalLM.from_pretrained(live_engines.config.policy, dtype=torch.float32).eval()  # type: ignore[no-any-return]


def logits(reference: torch.nn.Module, prefix: list[int], tokens: tuple[int, ...]) -> torch.Tensor:
    """Logits in front of each of `tokens`: (tokens, vocabulary)."""
    with torch.no_grad():
        whole = reference(torch.tensor([[*prefix, *tokens]])).logits[0].float()
    return whole[len(prefix) - 1 : -1]


def logprobs_of(scaled: torch.Tensor, tokens: tuple[int, ...]) -> list[float]:
    return [float(row[t]) for row, t in zip(scaled.log_softmax(-1), tokens, strict=True)]


def sample(
    live: LiveEngines, sampling: Sampling, seeds: list[int], prompt: str = PROMPT
) -> list[Continuation]:
    return live.run(live.engines.policy.sample(live.engines.tokenizer.encode(prompt), sampling, seeds))


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_behaviour_log_probabilities_are_those_of_the_distribution_sampled_from(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module, temperature: float
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)
    for step in sample(live_engines, Sampling(max_tokens=24, temperature=temperature), list(range(8))):
        expected = logprobs_of(logits(reference, prefix, step.token_ids) / temperature, step.token_ids)
        assert step.logprobs == pytest.approx(expected, abs=TOLERANCE / min(1, temperature))
        assert len(step.logprobs) == len(step.token_ids) == len(step.ends)
        assert step.release == "v000001"


def test_truncation_is_part_of_that_distribution(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)
    for step in sample(live_engines, Sampling(max_tokens=16, top_k=3), list(range(8))):
        rows = logits(reference, prefix, step.token_ids)
        for row, token, logprob in zip(rows, step.token_ids, step.logprobs, strict=True):
            kept = row.topk(3)
            assert token in kept.indices
            assert logprob == pytest.approx(float(row[token] - kept.values.logsumexp(0)), abs=TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_draws_that_depart_from_what_is_known_are_new_and_have_the_policys_own_log_probabilities(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module, temperature: float
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)
    sampling = Sampling(max_tokens=24, temperature=temperature, stop=("\n",))
    known = {
        one.token_ids: Known(one.token_ids, one.logprobs)
        for one in sample(live_engines, sampling, list(range(24)))
    }
    left = [depart(list(known.values()), 23, random.Random(seed)) for seed in range(48)]
    drawn = live_engines.run(engines.policy.sample(prefix, sampling, range(48), departures=left))
    for one, departure in zip(drawn, left, strict=True):
        assert departure is not None
        assert one.taken == len(departure.tokens)
        assert one.token_ids[: one.taken] == departure.tokens
        assert one.token_ids[one.taken] not in departure.barred
        assert one.token_ids not in known
        assert len(one.token_ids) <= 24
        assert one.text == engines.tokenizer.decode(one.token_ids)
        expected = logprobs_of(logits(reference, prefix, one.token_ids) / temperature, one.token_ids)
        assert one.logprobs == pytest.approx(expected, abs=10 * TOLERANCE)
    assert len({one.taken for one in drawn}) > 1


@pytest.mark.parametrize("bars_the_end", [True, False])
def test_an_answers_end_is_barred_if_it_is_known_and_only_then(
    live_engines: LiveEngines, engines: Engines, bars_the_end: bool
) -> None:
    """vLLM itself leaves out the model's end tokens before `min_tokens`, by which tokens are barred."""
    (whole,) = sample(live_engines, Sampling(max_tokens=60, temperature=0.0), [0])
    (newline,) = engines.tokenizer.encode_continuation("\n")
    end = whole.token_ids[-1]
    assert end in engines.tokenizer.eos_ids
    prefix = [*engines.tokenizer.encode(PROMPT), *whole.token_ids[:-1]]
    left = Departure((), (), (end if bars_the_end else newline,), 0.5)
    drawn = live_engines.run(
        engines.policy.sample(prefix, Sampling(max_tokens=2), range(8), departures=[left] * 8)
    )
    assert {one.token_ids[0] == end for one in drawn} == {not bars_the_end}


def test_a_nucleus_of_nothing_but_the_likeliest_has_probability_one(live_engines: LiveEngines) -> None:
    (step,) = sample(live_engines, Sampling(max_tokens=8, top_p=1e-6), [1])
    assert step.logprobs == pytest.approx([0.0] * len(step.logprobs), abs=1e-6)


def test_greedy_draws_report_log_probabilities_of_temperature_one(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)
    first, second = sample(live_engines, Sampling(max_tokens=16, temperature=0.0), [1, 2])
    assert first == second
    rows = logits(reference, prefix, first.token_ids)
    assert first.logprobs == pytest.approx(logprobs_of(rows, first.token_ids), abs=TOLERANCE)
    assert all(float(row.max() - row[t]) < TOLERANCE for row, t in zip(rows, first.token_ids, strict=True))


def test_next_tokens_are_the_likeliest_with_their_exact_log_probabilities(
    live_engines: LiveEngines, engines: Engines, reference: torch.nn.Module
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)
    steps = live_engines.run(engines.policy.next_tokens(prefix, 5, 0.7))
    expected = (logits(reference, prefix, (0,))[0] / 0.7).log_softmax(-1)
    assert [len(step.token_ids) for step in steps] == [1] * 5
    found = [step.logprobs[0] for step in steps]
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([float(expected[step.token_ids[0]]) for step in steps], abs=TOLERANCE / 0.7)
    assert found == pytest.approx(expected.topk(5).values.tolist(), abs=TOLERANCE / 0.7)
    for step in steps:
        assert (step.finish == "eos") == (step.token_ids[0] in engines.eos_ids)


def test_each_draw_follows_its_own_seed_and_neighbouring_seeds_do_not_share_streams(
    live_engines: LiveEngines,
) -> None:
    sampling = Sampling(max_tokens=16, temperature=1.5)
    one = sample(live_engines, sampling, [11, 12, 13, 11])
    assert one[0] == one[3]
    assert len({step.token_ids for step in one}) == 3
    two = sample(live_engines, sampling, [12, 13, 14, 2**63 + 11])
    assert [step.token_ids for step in two[:2]] == [step.token_ids for step in one[1:3]]


def test_seeds_hold_in_batches_that_mix_greedy_and_other_requests(
    live_engines: LiveEngines, engines: Engines
) -> None:
    """vllm#51226 said that they did not, on a CPU."""
    prefix = engines.tokenizer.encode(PROMPT)
    sampling = Sampling(max_tokens=8)
    alone = sample(live_engines, sampling, [21, 22])

    async def crowded() -> list[Continuation]:
        others = [
            engines.policy.sample(prefix, Sampling(max_tokens=40, temperature=t, top_p=p), [1, 2, 3])
            for t, p in ((0.0, 1.0), (1.0, 1.0), (0.7, 0.9))
        ]
        return (await asyncio.gather(engines.policy.sample(prefix, sampling, [21, 22]), *others))[0]

    # bfloat16 sums depend on the batch's shape: a token may differ where two were nearly level, not more
    same = sum(
        a.token_ids[:4] == b.token_ids[:4] for a, b in zip(alone, live_engines.run(crowded()), strict=True)
    )
    assert same >= 1


def test_a_stop_string_ends_a_draw_and_stays_in_its_text(live_engines: LiveEngines) -> None:
    stopped = sample(live_engines, Sampling(max_tokens=60, stop=("\n",)), list(range(16)))
    for step in stopped:
        assert step.text.count("\n") == (step.finish == "stop")
        assert step.text.endswith("\n") == (step.finish == "stop")
        assert step.ends[-1] == len(step.text)
    assert any(step.finish == "stop" for step in stopped)


def test_stop_tokens_and_matching_on_text_end_draws_alike(
    live_engines: LiveEngines, engines: Engines
) -> None:
    sampling = Sampling(max_tokens=60, stop=("\n",))
    by_token = sample(live_engines, sampling, list(range(16)))
    text = SampleParams(max_tokens=60, temperature=1.0, stop=("\n",))
    prefix = engines.tokenizer.encode(PROMPT)
    requests = [SampleRequest(prefix, text, seed) for seed in range(16)]
    by_text = live_engines.run(engines.by_role["policy"].generate(requests))
    assert [list(step.token_ids) for step in by_token] == [drawn.token_ids for drawn in by_text]
    assert [step.finish == "length" for step in by_token] == [not drawn.stopped for drawn in by_text]


def test_a_prompt_that_is_too_long_is_refused_by_name(live_engines: LiveEngines, engines: Engines) -> None:
    prompt = [engines.tokenizer.a_token] * (engines.max_model_len + 1)
    with pytest.raises(RequestRefused, match="longer than the maximum model length"):
        live_engines.run(engines.policy.sample(prompt, Sampling(max_tokens=4), [1, 2]))


def test_a_cancelled_draw_frees_the_engine_within_a_second_and_says_what_it_had_generated(
    live_engines: LiveEngines, engines: Engines
) -> None:
    """Three of four draws run on for ever; the fourth, of another call, is not disturbed."""
    prefix = engines.tokenizer.encode(PROMPT)
    engine = engines.by_role["policy"]
    params = SampleParams(max_tokens=engines.max_model_len, temperature=1.0, ignore_eos=True)
    forever = SampleRequest(prefix, params)

    async def go() -> tuple[int, float, list[Continuation]]:
        loop = asyncio.get_running_loop()
        doomed = asyncio.create_task(engine.generate([forever] * 3))
        bystander = asyncio.create_task(engines.policy.sample(prefix, Sampling(max_tokens=40), [1]))
        begun = engine.stats.steps
        await until(lambda: engine.stats.steps >= begun + 20)
        began = loop.time()
        doomed.cancel()
        with pytest.raises(SampleAborted) as aborted:
            await doomed
        result = await bystander
        while engine.unfinished or engine.stats.running or engine.stats.kv_usage:
            await engine.ping(engines.tokenizer.a_token)
            await asyncio.sleep(0.001)
        return aborted.value.tokens, loop.time() - began, result

    tokens, seconds, (survivor,) = live_engines.run(go())
    assert 3 * 15 <= tokens <= 3 * 40
    assert seconds < 1 + 0.05 * len(survivor.token_ids)
    assert survivor.token_ids


def test_a_draw_cancelled_while_it_waits_has_generated_nothing(
    live_engines: LiveEngines, engines: Engines
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)

    async def go() -> int:
        limiter = engines.policy._limiter
        taken = await limiter.acquire(limiter.limit)
        waiting = asyncio.create_task(engines.policy.sample(prefix, Sampling(max_tokens=4), [1, 2]))
        await until(lambda: limiter.waiting)
        waiting.cancel()
        with pytest.raises(SampleAborted) as aborted:
            await waiting
        limiter.release(taken)
        assert (limiter.taken, limiter.waiting) == (0, 0)
        return aborted.value.tokens

    assert live_engines.run(go()) == 0


def test_draws_are_independent_of_what_else_runs(live_engines: LiveEngines, engines: Engines) -> None:
    """Frequencies of the first token over many draws agree with its probabilities."""
    (likeliest, *_) = live_engines.run(engines.policy.next_tokens(engines.tokenizer.encode(PROMPT), 1, 1.0))
    p, n = math.exp(likeliest.logprobs[0]), 600
    drawn = sample(live_engines, Sampling(max_tokens=1), [7919 * i for i in range(n)])
    hits = sum(step.token_ids == likeliest.token_ids for step in drawn)
    assert abs(hits - n * p) <= 4 * math.sqrt(n * p * (1 - p)) + 1
