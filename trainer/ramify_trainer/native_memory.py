"""Memory that native libraries keep in a process that lives long: bounds on their caches, and a way to have the rest.

(2026-11-30, 2 million parameters, bfloat16 on a CPU, rounds of two steps of 6,000 tokens: the process held 996, 1138,
1207 and 1265 MB after four of them, though nothing of a round was alive; with the two functions below 452, 473, 475 and
479 MB. Every shape of a batch left 1.1 MB a layer in two caches of 1,024 kernels; new shapes took no longer with 64.)
"""

from __future__ import annotations

import ctypes
import os

CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables of oneDNN and of PyTorch's layer above it, which read them when they first compute."""
KERNELS = 64
"""Kernels that each of them keeps: those of one batch, since every batch has a shape of its own."""


def bound_caches() -> None:
    """Bound the caches of kernels for matrices in bfloat16 on a CPU, unless the environment does."""
    for name in CACHES:
        os.environ.setdefault(name, str(KERNELS))


def give_back() -> None:
    """Give the system what the C library keeps of freed memory, which is most of it: small things that live long lie
    among a step's tensors. Without glibc, do nothing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
