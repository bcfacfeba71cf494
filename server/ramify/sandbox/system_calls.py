"""The program by which the kernel refuses system calls to an answer: `refusals()`."""

from __future__ import annotations

import os
import struct

NEVER_X86 = (
    "29 30 31 41 57 58 59 64 68 101 132 135 141 142 144 154 155 161 165 166 203 206 235 240 246 248 249 250 251 253"
    " 261 272 278 280 294 298 300 303 304 308 310 311 312 314 319 321 322 323"
)
NEVER_ARM = (
    "0 26 30 39 40 41 51 75 88 92 97 104 117 118 119 122 140 180 186 190 194 195 196 198 217 218 219 221 241 262"
    " 264 265 268 270 271 272 274 279 280 281 282"
)
CALLS = {"x86_64": (0xC000003E, NEVER_X86, 56, 72), "aarch64": (0xC00000B7, NEVER_ARM, 220, 25)}
"""By machine: its audit number; the system calls that an answer may not make (shared memory, message queues,
semaphores, sockets, fork, vfork, execve, execveat, ptrace, personality, mounts, namespaces, keys, watches, other
processes' memory, memory files, BPF, userfaultfd, handles of files, priorities and other wishes about processors, times
of files, contexts of asynchronous I/O, of which the machine has few); the numbers of clone and fcntl."""
CALLS_OF_ALL = "425 426 427 428 429 430 431 432 433 434 438 442 447"
"""The same numbers everywhere: io_uring, new mounts, descriptors of processes, secret memory."""
CLONE3 = 435
SET_HINT, SET_FILE_HINT = 1036, 1038
"""Calls of fcntl that are refused: a hint stays with the file for the next test (older kernels let anybody set it)."""
NEW_NAMESPACES = 0x7E020000
CLONE_THREAD = 0x10000
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def refusals() -> bytes:
    """Return the program for this machine, in classic BPF: a refused call fails with EPERM."""
    audit, never, clone, fcntl = CALLS[os.uname().machine]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, KILL), (load, 0, 0, 0)]
    # The second set of calls that x86 has; clone3, whose flags cannot be seen: libc then takes clone.
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, EPERM)]
    program += [(equal, 0, 1, CLONE3), (give, 0, 0, ENOSYS)]
    for number in map(int, f"{never} {CALLS_OF_ALL}".split()):
        program += [(equal, 0, 1, number), (give, 0, 0, EPERM)]
    program += [(equal, 0, 5, fcntl), (load, 0, 0, 24), (equal, 1, 0, SET_HINT), (equal, 0, 1, SET_FILE_HINT)]
    program += [(give, 0, 0, EPERM), (give, 0, 0, ALLOW)]
    # Threads, and neither processes nor namespaces.
    program += [(equal, 1, 0, clone), (give, 0, 0, ALLOW), (load, 0, 0, 16)]
    program += [(any_bit, 0, 1, NEW_NAMESPACES), (give, 0, 0, EPERM)]
    program += [(any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, EPERM), (give, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in program)
