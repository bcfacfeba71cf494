"""The inside of one worker process: read a call, run it in the main thread, answer; die with the parent.

Both directions carry lines of JSON. In: `{"call": name, "arguments": …, "deadline": seconds}`. Out: first
`{"ready": true}`, then for each call `{"result": …}` or `{"failure": kind, "message": …}`, with `"last": true` if the
process ends after it. `pool.Pool` starts it as `python -m ramify.rewards.worker CONFIG` and never imports it.

The parent kills a worker that is late. If the parent itself is gone, three things end the worker: the kernel's
parent-death signal (Linux), the end of standard input, and a timer set for each call whose signal nobody handles, so
that even one endless operation in C cannot outlive it.

A hard memory limit alone would not do: libraries catch `MemoryError` with every other exception and then answer "not
equal". A call that took the process past half of the limit therefore counts as failed, whatever it answered. (A single
allocation of more than the other half is refused by the limit and can still be swallowed; with inputs of a few
thousand characters, such an integer takes longer to compute than any deadline.)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ramify.extensions import load

GRACE = 1.0
"""Seconds after a call's deadline at which the kernel ends a worker that the parent has not killed."""
MAX_MESSAGE = 300
"""Characters of an error that a reply repeats."""
EXCEEDED = 0.5
"""Share of the memory limit past which a call has failed."""
WORN = 0.35
"""Share of the memory limit from which a process is replaced after its call."""
PR_SET_PDEATHSIG = 1

Functions = Mapping[str, Callable[..., Any]]


def main(config: dict[str, Any]) -> None:
    """Serve calls until standard input ends."""
    # Nothing that the functions do may reach the parent, its files or its terminal, or outlive it.
    channel = _take_stdout()
    _die_with(config["parent"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes us
    memory: int = config["memory"]
    _limit_resources(memory)
    logging.disable(logging.CRITICAL)
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()

    # Imports may be slow and may fail; both happen before the first call's deadline runs.
    try:
        functions: Functions = load(config["functions"])()
    except Exception as error:
        _write(channel, {"failure": "crash", "message": _line(error), "last": True})
        return
    _write(channel, {"ready": True})

    while True:
        reply = _answer(functions, json.loads(lines.get()))
        if reply.get("failure") == "crash" or _memory("VmPeak") > EXCEEDED * memory:
            reply = {"failure": "crash", "message": "the verifier ran into its memory limit", "last": True}
        elif _memory("VmSize") > WORN * memory:
            reply["last"] = True
        _write(channel, reply)
        if "last" in reply:
            return


def _answer(functions: Functions, call: dict[str, Any]) -> dict[str, Any]:
    signal.setitimer(signal.ITIMER_REAL, call["deadline"] + GRACE)
    try:
        result = functions[call["call"]](**call["arguments"])
        return {"result": json.loads(json.dumps(result))}
    except MemoryError:
        return {"failure": "crash"}
    except Exception as error:
        return {"failure": "error", "message": _line(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _take_stdout() -> int:
    """Keep standard output for replies; whatever prints writes nowhere."""
    channel = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    return channel


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _limit_resources(memory: int) -> None:
    """Have the kernel refuse core dumps, file writes, and memory past `memory` bytes (macOS has no such limit)."""
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _memory(field: str) -> int:
    """Return the bytes of address space that Linux reports under `field`; 0 on other systems."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    size = re.search(rf"{field}:\s+(\d+) kB", status)
    return int(size[1]) * 1024 if size else 0


def _read(lines: SimpleQueue[bytes]) -> None:
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put(line)
    os._exit(0)


def _write(channel: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    while data:
        data = data[os.write(channel, data) :]


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_MESSAGE]


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    finally:
        os._exit(1)  # without waiting for the thread that reads
