from __future__ import annotations

import asyncio
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures_engines import LiveEngines, until
from ramify.api.openai.fields import to_vllm
from ramify.bench.recording import recorded, replay
from ramify.engines import Engines, EngineStartFailed, SampleParams, SampleRequest
from ramify.engines import engines as module
from ramify.engines.start import Launch
from ramify.engines.vllm import multiplies_bfloat16
from ramify.search.crowd import StepTimes
from ramify.search.protocols import Scorer
from ramify.search.records import Continuation, Sampling

PROMPT = "3 5 7 8 to 24\n"


def test_a_probe_passes_while_the_engines_answer(live_engines: LiveEngines, engines: Engines) -> None:
    before = engines.stats()
    live_engines.run(engines.probe(30.0))
    assert all(engines.stats()[f"{role}_steps"] > before[f"{role}_steps"] for role in ("policy", "value"))


def test_a_probe_behind_a_queue_is_answered_by_the_queue_s_progress(
    live_engines: LiveEngines, engines: Engines
) -> None:
    prefix = engines.tokenizer.encode(PROMPT)
    engine = engines.by_role["policy"]
    long = SampleRequest(prefix, SampleParams(max_tokens=100, temperature=1.0, ignore_eos=True))

    async def go() -> None:
        crowd = asyncio.create_task(engine.generate([long] * 3 * engines.config.options.max_num_seqs))
        await until(lambda: engine.stats.running)
        await engines._probe(engine, 1.0)
        assert not crowd.done()
        crowd.cancel()
        await asyncio.wait([crowd])

    live_engines.run(go())


def test_recorded_calls_are_replayed_with_their_lengths(live_engines: LiveEngines, engines: Engines) -> None:
    prefix = engines.tokenizer.encode(PROMPT)

    async def work() -> list[Continuation]:
        drawn = await engines.policy.sample(prefix, Sampling(max_tokens=20, stop=("\n",)), [1, 2, 3])
        await engines.policy.next_tokens(prefix, 4, 1.0)
        await engines.scorer.score([prefix, [*prefix, *drawn[0].token_ids]])
        return drawn

    async def go() -> None:
        with recorded(engines) as searched:
            drawn = await work()
        assert (searched.calls, len(searched.judgements)) == (3, 1)
        assert searched.samples[0][1] == [len(one.token_ids) for one in drawn]
        await engines.reset_prefix_caches()
        with recorded(engines) as replayed:
            assert await replay(searched, engines) > 0
        assert (replayed.calls, replayed.tokens) == (searched.calls, searched.tokens)

    live_engines.run(go())


def test_statistics_name_each_engine_s_figures(engines: Engines) -> None:
    figures = engines.stats()
    assert {name for name in figures if name.startswith("policy_")} == {
        "policy_running",
        "policy_waiting",
        "policy_kv_usage",
        "policy_steps",
    }
    assert all(isinstance(value, int | float) for value in figures.values())


def test_the_time_of_a_step_is_learned_from_draws(engines: Engines, live_engines: LiveEngines) -> None:
    class Noting(StepTimes):
        def see(self, sequences: int, seconds: float) -> None:
            noted.append((sequences, seconds))

    policy, noted = engines.by_role["policy"], list[tuple[int, float]]()
    params = SampleParams(max_tokens=12, temperature=1.0, ignore_eos=True)
    requests = [SampleRequest([engines.tokenizer.a_token], params)] * 64
    before, policy.stats.step_times = policy.stats.step_times, Noting()
    try:
        for draws in (1, 64):
            live_engines.run(policy.generate(requests[:draws]))
    finally:
        policy.stats.step_times = before
    assert len(noted) >= 2 * (12 - 2)
    assert min(noted)[0] == 1
    assert max(noted)[0] > 32
    assert all(seconds > 0 for _, seconds in noted)


def test_the_time_of_a_step_is_known_from_the_start(engines: Engines) -> None:
    assert engines.by_role["policy"].stats.step_times.fit is not None


def test_bfloat16_is_multiplied_where_the_cpu_has_instructions_for_it() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    slow = platform.machine() == "x86_64" and not flags & {"avx512_bf16", "amx_tile"}
    assert multiplies_bfloat16() is not slow


def test_a_conversation_goes_through_the_chat_template(engines: Engines) -> None:
    tokenizer = engines.tokenizer
    if not tokenizer.hf.chat_template:
        with pytest.raises(ValueError, match="no chat template"):
            tokenizer.encode_chat([{"role": "user", "content": "3 5 to 8"}])
        return
    assert "3 5 to 8" in tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "3 5 to 8"}]))


def test_what_goes_to_vllm_by_name_is_a_field_of_vllms_request(engines: Engines) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    assert to_vllm("completions") <= set(CompletionRequest.model_fields)
    assert to_vllm("chat") <= set(ChatCompletionRequest.model_fields)


class Started:
    """An engine that is up and does nothing."""

    def __init__(self, launch: Launch) -> None:
        self.launch, self.closed = launch, False

    async def close(self) -> None:
        self.closed = True


def test_a_scorer_that_cannot_be_made_leaves_neither_engine_nor_folder(
    live_engines: LiveEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Started] = []

    def start(launch: Launch) -> Started:
        started.append(Started(launch))
        return started[-1]

    def scorer(*_: object) -> Scorer:
        raise ValueError("no scorer")

    monkeypatch.setattr(module, "start_engine", start)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="no scorer"):
        live_engines.run(Engines.start(replace(live_engines.config, scorer=scorer)))
    assert [engine.closed for engine in started] == [True, True]
    assert not list(tmp_path.iterdir())


def test_a_parser_that_vllm_does_not_know_is_refused_with_those_that_there_are(engines: Engines) -> None:
    from ramify.engines.vllm.openai_serving import check_parsers

    check_parsers("hermes", "qwen3", engines.tokenizer.hf)
    with pytest.raises(EngineStartFailed, match=r"engine.tool_parser is 'chess'; vLLM has .*hermes"):
        check_parsers("chess", None, engines.tokenizer.hf)
    with pytest.raises(EngineStartFailed, match=r"engine.reasoning_parser is 'chess'; vLLM has .*qwen3"):
        check_parsers(None, "chess", engines.tokenizer.hf)
    with pytest.raises(EngineStartFailed, match="deepseek_v3"):
        check_parsers("deepseek_v3", None, engines.tokenizer.hf)  # whose tokens this tokenizer has not
