"""Prefixes that end within a block of the KV cache: a draw from the middle of an answer computes none of it anew.

vLLM shares cached prefixes by whole blocks, of 16 tokens on a GPU and of 32 at least on a CPU: more than a short prompt
has, and more than lies between two nodes of a tree. Yet the block in which an earlier draw went on beyond a node holds
that node's states as well. vLLM can begin a request in the middle of a block, by copying it first (copy-on-write, which
it uses for the prompts of hybrid models); what it lacks is the lookup of such a block, which is here.

A block that is kept gets a hash of its own, as full blocks have: vLLM then gives it back after all that nothing can
reuse, and takes the hash away when it does. So a block holds what it held as long as it has its hash.

2026-11-30: vLLM's own finer hashes (`hash_block_size`) were not taken. It allows them for several kinds of layers only,
and keeps one boundary of a request, its prompt's, while a tree goes on from any.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from itertools import count, takewhile
from operator import eq
from typing import Any, NamedTuple

import torch
from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_utils import (
    BlockHash,
    KVCacheBlock,
    KVCacheBlockCopy,
    generate_block_hash_extra_keys,
    make_block_hash_with_group_id,
)
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.worker.utils import copy_kv_cache_blocks_inplace

Tokens = tuple[int, ...]
WORTH_A_COPY = 4
"""A block is copied for at least its size divided by this many tokens. All prompts of a task may begin alike."""


class PrefixScheduler:
    """The difference from vLLM's schedulers, as a mix-in for any of them."""

    kv_cache_manager: Any
    """vLLM's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prefixes = self._empty_prefixes()

    def _empty_prefixes(self) -> CachedPrefixes | None:
        cache = self.kv_cache_manager
        supported = CachedPrefixes.supported(cache, self.vllm_config)  # type: ignore[attr-defined]
        return CachedPrefixes(cache) if supported else None

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

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        done: bool = super().reset_prefix_cache(*args, **kwargs)  # type: ignore[misc]
        if done:
            self._prefixes = self._empty_prefixes()
        return done


class CachedBlock(NamedTuple):
    """Tokens whose states a block has."""

    parent: Hashable
    """Key of all that lies before the block, and of what keeps equal tokens apart in it (adapter, salt)."""
    tokens: Tokens
    """From the block's first place on."""
    hash: bytes
    """The block's hash for as long as it holds them: this very object, since vLLM gives an equal one to a block as soon
    as the same tokens are about to be computed in it."""


class CachedPrefixes:
    """The blocks that requests leave behind, by their tokens."""

    def __init__(self, cache: Any) -> None:
        """cache: the `KVCacheManager` of a scheduler."""
        (manager,) = cache.coordinator.single_type_managers
        self._pool, self._size = cache.block_pool, manager.block_size
        self._cached: dict[int, CachedBlock] = {}
        """By the block's number."""
        self._by_parent: defaultdict[Hashable, list[tuple[Tokens, int]]] = defaultdict(list)
        """Tokens and number of the blocks after one prefix, sorted."""
        self._names = count()

    @staticmethod
    def supported(cache: Any, vllm_config: Any) -> bool:
        """Return whether requests may begin within a block: with full attention in all layers, nothing drafted, and no
        states that come from elsewhere."""
        managers = cache.coordinator.single_type_managers
        return (
            cache.enable_caching
            and vllm_config.speculative_config is None
            and vllm_config.kv_transfer_config is None
            and len(managers) == 1
            and type(managers[0]) is FullAttentionManager
        )

    def keep(self, request: Any, blocks: Sequence[KVCacheBlock]) -> None:
        """Remember what the blocks of a request hold, which is about to give them back: it ends, or makes room for
        others."""
        # The last token's state may not be written yet. A step under way writes after those before it.
        known = min(request.num_computed_tokens, request.num_tokens - 1)
        for start, block in zip(range(0, known, self._size), blocks, strict=False):
            cached = self._cached.get(block.block_id)
            if cached is not None and cached.hash is block.block_hash:
                continue
            self._forget(block.block_id)
            tokens = tuple(request.all_token_ids[start : min(start + self._size, known)])
            parent = self._parent(request, start)
            if block.block_hash is None:
                if self._longest(parent, tokens, least=len(tokens)):
                    continue  # another holds all of it, so this one may be reused first
                name = make_block_hash_with_group_id(BlockHash(b"ramify%d" % next(self._names)), 0)
                self._pool._insert_block_hash(name, block, num_tokens=start + len(tokens))
            self._cached[block.block_id] = CachedBlock(parent, tokens, block.block_hash)
            insort(self._by_parent[parent], (tokens, block.block_id))

    def find(self, request: Any, start: int) -> tuple[KVCacheBlock, int] | None:
        """Return the block that shares most of a request's tokens from `start` on, where a block begins, and how many.

        Its last token is left to be computed. None if no block shares enough, or if there is no room for a copy: what
        is copied takes a place beside all that the request itself needs."""
        end, least = min(start + self._size, request.num_tokens - 1), self._size // WORTH_A_COPY
        if end - start < least or self._pool.get_num_free_blocks() <= cdiv(request.num_tokens, self._size):
            return None
        return self._longest(self._parent(request, start), tuple(request.all_token_ids[start:end]), least)

    def _parent(self, request: Any, start: int) -> Hashable:
        extra, _ = generate_block_hash_extra_keys(request, start, start + self._size, 0)
        return request.block_hashes[start // self._size - 1] if start else None, extra

    def _longest(self, parent: Hashable, tokens: Tokens, least: int) -> tuple[KVCacheBlock, int] | None:
        """Return the block that shares most of the tokens, and how many; None if they are fewer than `least`.

        Blocks that it meets and that were given away are forgotten."""
        while siblings := self._by_parent.get(parent):
            # In sorted order those that share most with it are its neighbours.
            at = bisect_left(siblings, (tokens, -1))
            near = siblings[max(0, at - 1) : at + 1]
            shared, number = max((shared_length(tokens, other), number) for other, number in near)
            if shared < least:
                return None
            block = self._pool.blocks[number]
            if block.block_hash is self._cached[number].hash:
                return block, shared
            self._forget(number)
        return None

    def _forget(self, number: int) -> None:
        if cached := self._cached.pop(number, None):
            siblings = self._by_parent[cached.parent]
            del siblings[bisect_left(siblings, (cached.tokens, number))]
            if not siblings:
                del self._by_parent[cached.parent]


def shared_length(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two sequences share from their beginning on."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))


def copy_blocks(caches: Iterable[torch.Tensor], count: int, copies: Sequence[KVCacheBlockCopy]) -> None:
    """Copy blocks in every layer's cache, as vLLM does, which on a CPU goes byte by byte and takes four times as long.
    Caches that share memory are left to it.

    caches: of layers, (`count` or a multiple of it, …)."""
    layers = list({cache.data_ptr(): cache for cache in caches}.values())
    if any(cache.nbytes != cache.untyped_storage().nbytes() for cache in layers):
        copy_kv_cache_blocks_inplace(layers, count, copies)
        return
    sources, targets = torch.tensor(copies).unbind(dim=1)
    for cache in layers:
        blocks = cache.view(count, -1, *cache.shape[1:])
        blocks.index_copy_(0, targets, blocks.index_select(0, sources))
