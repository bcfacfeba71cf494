"""Requests begin within blocks of the KV cache: vLLM's schedulers, and a memory that knows what each place holds."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from ramify.engines.vllm import preload
from ramify.weights import shipped

BLOCK = 4
PROMPT = [5, 6, 7, 8, 9, 10]
"""A block and a half."""


class Device:
    """In a model runner's place. What it writes to a place of the KV cache is all the tokens that its state depends on,
    so that it can tell whether a request reads its own."""

    def __init__(self, blocks: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.memory: list[list[Any]] = [[None] * BLOCK for _ in range(blocks)]
        self.tokens: dict[str, list[Any]] = {}
        """Tokens of each request, after the name of its adapter."""
        self.blocks: dict[str, list[int]] = {}
        self.computed: dict[str, int] = {}
        """Tokens that are computed before the first is sampled."""

    def execute(self, step: Any) -> Any:
        """Do what a step asks for; return what it sampled."""
        from vllm.v1.outputs import ModelRunnerOutput

        copies = step.kv_cache_block_copies or ()
        for target, held in [(copy.dst_block_id, list(self.memory[copy.src_block_id])) for copy in copies]:
            self.memory[target] = held
        begins = {}
        for new in step.scheduled_new_reqs:
            begins[new.req_id] = new.num_computed_tokens
            salt = new.lora_request and new.lora_request.lora_name
            self.tokens[new.req_id] = [salt, *(new.prefill_token_ids or new.prompt_token_ids)]
            self.blocks[new.req_id] = list(new.block_ids[0])
            self.computed[new.req_id] = len(new.prompt_token_ids) - new.num_computed_tokens
        known = step.scheduled_cached_reqs
        for i, name in enumerate(known.req_ids):
            begins[name] = known.num_computed_tokens[i]
            if known.new_block_ids[i] is not None:
                if name in known.resumed_req_ids:
                    self.blocks[name].clear()
                self.blocks[name] += known.new_block_ids[i][0]
        # A layer writes the states of all requests before it reads any.
        ends = {name: begin + step.num_scheduled_tokens[name] for name, begin in begins.items()}
        for name, begin in begins.items():
            for place in range(begin, ends[name]):
                self._at(name, place)[place % BLOCK] = self._state(name, place)
        sampled = [self._sampled(name, end) for name, end in ends.items()]
        return ModelRunnerOutput([*begins], {name: i for i, name in enumerate(begins)}, sampled)

    def _sampled(self, name: str, end: int) -> list[int]:
        """Read the first states of a request, and return what follows; nothing in the middle of its tokens."""
        for place in range(end):
            assert self._at(name, place)[place % BLOCK] == self._state(name, place)
        tokens = self.tokens[name]
        if end < len(tokens) - 1:
            return []
        tokens.append(self.random.randrange(5, 8))
        return tokens[-1:]

    def _state(self, name: str, place: int) -> tuple[Any, ...]:
        return tuple(self.tokens[name][: place + 2])

    def _at(self, name: str, place: int) -> list[Any]:
        return self.memory[self.blocks[name][place // BLOCK]]


class Engine:
    """A scheduler and a device, as vLLM's engine core runs them."""

    def __init__(self, scheduler: Any, device: Device, ahead: int) -> None:
        self.scheduler, self.device, self.ahead = scheduler, device, ahead
        self._under_way: deque[tuple[Any, Any]] = deque()
        self._names = count()

    def ask(
        self,
        tokens: Sequence[int],
        length: int = 3,
        adapter: str | None = None,
        prompt_logprobs: int | None = None,
    ) -> str:
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import SamplingParams
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher
        from vllm.v1.request import Request

        params = SamplingParams(
            max_tokens=length, ignore_eos=True, detokenize=False, prompt_logprobs=prompt_logprobs
        )
        lora = adapter and LoRARequest(adapter, 1 + len(adapter), f"/{adapter}")
        hasher = get_request_block_hasher(BLOCK, _hashed)
        name = str(next(self._names))
        self.scheduler.add_request(
            Request(name, list(tokens), params, None, lora_request=lora or None, block_hasher=hasher)
        )
        return name

    def step(self, abort: Sequence[str] = ()) -> None:
        """Take a step. abort: requests whose abort arrives while it is computed."""
        from vllm.v1.request import RequestStatus

        step = self.scheduler.schedule()
        self._under_way.append((step, self.device.execute(step)))
        self.scheduler.finish_requests(abort, RequestStatus.FINISHED_ABORTED)
        if len(self._under_way) > self.ahead or not step.total_num_scheduled_tokens:
            self.scheduler.update_from_output(*self._under_way.popleft())

    def finish(self) -> None:
        for _ in range(1000):
            if not self.scheduler.has_unfinished_requests():
                break
            self.step()
        assert not self.scheduler.has_unfinished_requests()
        while self._under_way:
            self.scheduler.update_from_output(*self._under_way.popleft())

    def drawn(self, tokens: Sequence[int], **asked: Any) -> list[int]:
        """Draw to the end; return the whole sequence."""
        name = self.ask(tokens, **asked)
        self.finish()
        return self.device.tokens[name][1:]

    def computed(self, tokens: Sequence[int], **asked: Any) -> int:
        """Return how many of its tokens a request computes before its first sample."""
        name = self.ask(tokens, **asked)
        self.finish()
        return self.device.computed[name]


EngineOf = Callable[..., Engine]


def _hashed(value: Any) -> bytes:
    return repr(value).encode()


@pytest.fixture(scope="module", params=["synchronous", "asynchronous", "prompts in parts"])
def engine_of(request: pytest.FixtureRequest) -> EngineOf:
    preload("ERROR", 60)
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.core.kv_cache_utils import init_none_hash
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from ramify.engines.vllm.scheduler import search_scheduler

    ahead, in_parts = int(request.param == "asynchronous"), request.param == "prompts in parts"
    config = EngineArgs(
        model=str(shipped() / "policy"),
        max_model_len=64,
        max_num_seqs=8,
        enable_prefix_caching=True,
        enable_chunked_prefill=in_parts,
        max_num_batched_tokens=8 if in_parts else 512,
        enable_lora=True,
        max_loras=4,
        async_scheduling=bool(ahead),
    ).create_engine_config()
    init_none_hash(_hashed)
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)

    def engine(blocks: int, seed: int = 0, caching: bool = True) -> Engine:
        config.cache_config.enable_prefix_caching = caching
        config.cache_config.num_gpu_blocks = blocks
        cache = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
        kind = search_scheduler(config.scheduler_config.get_scheduler_cls())
        scheduler = kind(config, cache, StructuredOutputManager(config), block_size=BLOCK)
        return Engine(scheduler, Device(blocks, seed), ahead)

    return engine


def test_a_draw_from_within_an_earlier_one_computes_its_last_token_alone(
    engine_of: EngineOf,
) -> None:
    engine = engine_of(64)
    whole = engine.drawn(PROMPT, length=9)
    for end in range(len(PROMPT), len(whole)):
        assert engine.computed(whole[:end]) == 1
    assert engine.computed([*whole[:10], 99]) == 1
    assert engine.computed([*whole[:10], 98, 98, 98]) == 3
    assert engine.computed([4, *whole[1:]]) == len(whole)


def test_what_a_request_forked_from_is_kept_for_the_next(engine_of: EngineOf) -> None:
    engine = engine_of(16)
    whole = engine.drawn(PROMPT, length=6)
    assert [engine.computed(whole[:9], length=2) for _ in range(20)] == [1] * 20


def test_prefixes_of_one_adapter_are_not_anothers(engine_of: EngineOf) -> None:
    engine = engine_of(64)
    for adapter in (None, "one", "three"):
        assert engine.computed(PROMPT, adapter=adapter) == len(PROMPT)
        assert engine.computed(PROMPT, adapter=adapter) == 1


def test_nothing_is_left_of_prefixes_once_they_are_forgotten(engine_of: EngineOf) -> None:
    engine = engine_of(64)
    engine.drawn(PROMPT)
    assert engine.scheduler.reset_prefix_cache()
    assert engine.computed(PROMPT) == len(PROMPT)


def test_a_request_for_the_prompts_log_probs_computes_all_of_it(engine_of: EngineOf) -> None:
    engine = engine_of(64)
    assert engine.drawn(PROMPT)[: len(PROMPT)] == PROMPT
    assert engine.computed(PROMPT, prompt_logprobs=1) == len(PROMPT)


def test_without_a_prefix_cache_everything_is_computed(engine_of: EngineOf) -> None:
    engine = engine_of(64, caching=False)
    assert [engine.computed(PROMPT) for _ in range(3)] == [len(PROMPT)] * 3


def test_a_small_cache_gives_up_what_was_used_least_lately(engine_of: EngineOf) -> None:
    engine = engine_of(9)
    engine.drawn(PROMPT, length=2)
    for first in range(20, 24):
        engine.drawn([first, *PROMPT], length=2)
    assert engine.computed([23, *PROMPT]) == 1
    assert engine.computed(PROMPT) == len(PROMPT)


def test_a_sequence_that_fills_the_cache_is_computed_without_a_copy(
    engine_of: EngineOf,
) -> None:
    engine = engine_of(1 + 4)
    whole = engine.drawn(PROMPT, length=9)
    assert engine.computed([*whole[:7], *range(20, 28)], length=1) == 11
    assert engine.computed(whole[:7], length=1) == 1


@pytest.mark.parametrize("blocks", [10, 24, 200])
def test_no_request_reads_the_states_of_others_whatever_comes_and_goes(
    engine_of: EngineOf, blocks: int
) -> None:
    for seed in range(10):
        engine, chance = engine_of(blocks, seed), random.Random(seed)
        for _ in range(150):
            event = chance.random()
            if event < 0.4 and len(engine.scheduler.requests) < 8:
                _, *begun = chance.choice(
                    [[None, *PROMPT], [None, *PROMPT[:5], 20], *engine.device.tokens.values()]
                )
                adapter = chance.choice([None, None, "one"])
                engine.ask(begun[: chance.randint(1, 20)], chance.randint(1, 9), adapter)
            elif event < 0.5 and engine.scheduler.requests:
                engine.step(abort=[chance.choice([*engine.scheduler.requests])])
            elif event < 0.52:
                engine.scheduler.reset_prefix_cache()
            else:
                engine.step()
        engine.finish()


def test_blocks_are_copied_as_vllm_copies_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from vllm.v1.core.kv_cache_utils import KVCacheBlockCopy
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
    from vllm.v1.worker import gpu_model_runner
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.utils import copy_kv_cache_blocks_inplace

    from ramify.engines.vllm import core_process

    name = "copy_kv_cache_blocks_inplace"
    monkeypatch.setattr(gpu_model_runner, name, getattr(gpu_model_runner, name))
    monkeypatch.setattr(TopKTopPSampler, "forward_cpu", TopKTopPSampler.forward_cpu)
    core_process._spare_the_cpu()
    copy_blocks = getattr(gpu_model_runner, name)
    assert copy_blocks is not copy_kv_cache_blocks_inplace
    assert issubclass(CPUModelRunner, gpu_model_runner.GPUModelRunner)

    # One that is read is written as well.
    copies = [KVCacheBlockCopy(*pair) for pair in [(1, 4), (4, 2), (1, 0)]]
    plain = [torch.randn(6, 2, 3, BLOCK, 8, dtype=torch.bfloat16), torch.randn(12, 2, 3, 2, 8)]
    shared = torch.randn(12, 2, 3, 8)
    for caches in (plain, [shared[:, 0], shared[:, 1]]):
        expected = [cache.clone() for cache in caches]
        copy_kv_cache_blocks_inplace([*expected, expected[0]], 6, copies)
        copy_blocks([*caches, caches[0]], 6, copies)
        for mine, theirs in zip(caches, expected, strict=True):
            assert torch.equal(mine, theirs)
