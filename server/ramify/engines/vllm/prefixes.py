"""Prefixes that end within a block of the KV cache: a draw from the middle of an answer computes none of it anew.

vLLM shares cached prefixes by whole blocks, of 16 tokens on a GPU and of 32 at least on a CPU: more than a short prompt
has, and more than lies between two nodes of a tree. Yet the block in which an earlier draw went on beyond a node holds
that node's states as well. vLLM can begin a request in the middle of a block, by copying it first (copy-on-write, which
it uses for the prompts of hybrid models); what it lacks is the lookup of such a block, which is here.

A block that is kept gets a hash of its own, as full blocks have: vLLM then gives it back after all that nothing can
reuse, and takes the hash away when it does. So a block holds what it held as long as it has its hash.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import count, takewhile
from operator import eq
from typing import Any, NamedTuple

from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_utils import (
    BlockHash,
    KVCacheBlock,
    generate_block_hash_extra_keys,
    make_block_hash_with_group_id,
)
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

Tokens = tuple[int, ...]


class PrefixScheduler:
    """The difference from vLLM's schedulers, as a mix-in for any of them."""

    kv_cache_manager: Any
    """vLLM's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        works = Prefixes.work_in(self.kv_cache_manager, self.vllm_config)  # type: ignore[attr-defined]
        self._prefixes = Prefixes(self.kv_cache_manager) if works else None

    def _get_local_prefix_cache_hit(self, request: Any) -> tuple[Any, ...]:
        hit, cached, *others = super()._get_local_prefix_cache_hit(request)  # type: ignore[misc]
        cache = self.kv_cache_manager
        if self._prefixes is None or not cache.prefix_cache_lookup_enabled(request):
            return hit, cached, *others
        found = self._prefixes.find(request, cached)
        if found is None:
            return hit, cached, *others
        block, tokens = found
        (whole,) = hit.blocks
        return cache.create_kv_cache_blocks(([*whole, block],)), cached + tokens, *others

    def _free_request_blocks(self, request: Any) -> None:
        if self._prefixes is not None:
            (blocks,) = self.kv_cache_manager.get_blocks(request.request_id).blocks
            self._prefixes.keep(request, blocks)
        super()._free_request_blocks(request)  # type: ignore[misc]


class Kept(NamedTuple):
    """What a block holds."""

    before: Hashable
    """All that lies before the block, by its hash."""
    tokens: Tokens
    """Tokens whose states it has, from its first on."""
    hash: bytes
    """The block's hash for as long as it holds them: this very object, since vLLM gives an equal one to a block as soon
    as the same tokens are about to be computed in it."""


class Prefixes:
    """The blocks that ended requests leave behind, by their tokens."""

    def __init__(self, cache: Any) -> None:
        """cache: the `KVCacheManager` of a scheduler."""
        (manager,) = cache.coordinator.single_type_managers
        self._pool, self._size = cache.block_pool, manager.block_size
        self._kept: dict[int, Kept] = {}
        """By the block's number."""
        self._after: defaultdict[Hashable, list[tuple[Tokens, int]]] = defaultdict(list)
        """Tokens and number of the blocks after one prefix, sorted."""
        self._names = count()

    @staticmethod
    def work_in(cache: Any, vllm_config: Any) -> bool:
        """Return whether vLLM can begin requests within a block: of full attention in all layers, nothing drafted."""
        managers = cache.coordinator.single_type_managers
        return (
            cache.enable_caching
            and vllm_config.speculative_config is None
            and len(managers) == 1
            and type(managers[0]) is FullAttentionManager
            and getattr(FullAttentionManager, "supports_fine_grained_hash_lookup", False)
        )

    def keep(self, request: Any, blocks: Sequence[KVCacheBlock]) -> None:
        """Remember what the blocks of a request hold, which ends and is about to give them back."""
        # The last token was sampled and not read. If a step is under way, it writes after those before.
        known = min(request.num_computed_tokens, request.num_tokens - 1)
        for first, block in zip(range(0, known, self._size), blocks, strict=False):
            kept = self._kept.get(block.block_id)
            if kept is not None and kept.hash is block.block_hash:
                continue
            self._forget(block.block_id)
            tokens = tuple(request.all_token_ids[first : min(first + self._size, known)])
            before = self._before(request, first)
            if block.block_hash is None:
                if (found := self._longest(before, tokens)) and found[1] == len(tokens):
                    continue
                name = make_block_hash_with_group_id(BlockHash(b"ramify%d" % next(self._names)), 0)
                self._pool._insert_block_hash(name, block, num_tokens=first + len(tokens))
            self._kept[block.block_id] = Kept(before, tokens, block.block_hash)
            insort(self._after[before], (tokens, block.block_id))

    def find(self, request: Any, first: int) -> tuple[KVCacheBlock, int] | None:
        """Return the block that shares most of a request's tokens from `first` on, where a block begins, and how many;
        its last token is left to be computed. None if no block shares any, or if there is no room for a copy: what is
        copied takes a place beside all that the request itself needs."""
        if self._pool.get_num_free_blocks() <= cdiv(request.num_tokens, self._size):
            return None
        end = min(first + self._size, request.num_tokens - 1)
        return self._longest(self._before(request, first), tuple(request.all_token_ids[first:end]))

    def _before(self, request: Any, first: int) -> Hashable:
        extra, _ = generate_block_hash_extra_keys(request, first, first + self._size, 0)
        return request.block_hashes[first // self._size - 1] if first else None, extra

    def _longest(self, before: Hashable, tokens: Tokens) -> tuple[KVCacheBlock, int] | None:
        while held := self._after.get(before):
            # In sorted order those that share most with it are its neighbours.
            at = bisect_left(held, (tokens, -1))
            shared, number = max(
                (_shared(tokens, other), number) for other, number in held[max(0, at - 1) : at + 1]
            )
            if not shared:
                return None
            block = self._pool.blocks[number]
            if block.block_hash is self._kept[number].hash:
                return block, shared
            self._forget(number)
        return None

    def _forget(self, number: int) -> None:
        if kept := self._kept.pop(number, None):
            held = self._after[kept.before]
            del held[bisect_left(held, (kept.tokens, number))]
            if not held:
                del self._after[kept.before]


def _shared(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two sequences share from their beginning on."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))
