"""The inside of a sandbox: process 1, which starts one process for each test and says how it ended.

`session` passes this file's text to a bare interpreter with the standard library alone, so it imports nothing of ours.

Process 1 never holds an answer or a test. It gets the ends of pipes and gives them to a process of its own kind, the
first of a new process namespace, which reads there what to run. So nothing of one test is in the memory of another, nor
can one find the other's process; and once the first process of a namespace has ended, the kernel has ended all others.

Everything else (who is fed what, the limits of time and output, whether it is right) is decided outside.
"""

from __future__ import annotations

import _socket
import atexit
import ctypes
import gc
import json
import os
import resource
import select
import signal
import struct
import sys

TYPE_CHECKING = False  # typing itself takes a tenth of the start
if TYPE_CHECKING:
    from typing import Any, NoReturn

CLONE = {"x86_64": 56, "aarch64": 220}
CLONE_NEWPID, CLONE_PIDFD = 0x20000000, 0x1000
PR_SET_DUMPABLE, PR_SET_SECCOMP = 4, 22
NO_CAPABILITIES = struct.pack("Ii", 0x20080522, 0), bytes(24)
LIMITS = (
    *((getattr(resource, f"RLIMIT_{name}"), 0, 0) for name in ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE")),
    (resource.RLIMIT_NOFILE, 32, 32),
    (resource.RLIMIT_NPROC, 16, 16),
    (resource.RLIMIT_SIGPENDING, 64, 64),
)
"""Limits of a test beside time and memory, soft and hard. The number of processes counts threads: of processes it has
one."""
CONTROL = 20
"""The descriptor of process 1's orders, out of the way of a test's."""

libc = ctypes.PyDLL(None, use_errno=True)  # which keeps the interpreter's lock: a fork must have it
syscall, wait4, prctl, capset = libc.syscall, libc.wait4, libc.prctl, libc.capset
# How a test ended and what its processes were called are as much its own as what it read: process 1 makes no objects
# of them, which the next test would find.
syscall.restype = wait4.restype = None
process = ctypes.c_int()
"""A descriptor of the test's process."""
ended = ctypes.create_string_buffer(256)
"""The kernel's status and, from the eighth byte on, its `rusage`."""


def main(refusals: bytes, preload: str, folders: list[str]) -> None:
    """Start a process for each test that comes, until the other end of standard input is closed.

    `preload` is code of ours, not an answer's, that runs first; tests see its names, and it may import from `folders`.
    """
    _check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))  # nobody may look into this process
    code = ctypes.create_string_buffer(refusals, len(refusals))
    header = struct.pack("HxxxxxxP", len(refusals) // 8, ctypes.addressof(code))
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, os.dup2(0, CONTROL))
    nowhere = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 2):
        os.dup2(nowhere, fd)
    sys.path[:] = [*(path for path in sys.path if path), *folders]
    try:
        names = _preload(preload)
    except Exception as error:
        control.send(f"not ready: {type(error).__name__}: {error}"[:250].encode())
        return
    gc.freeze()  # so that a fork copies less
    control.send(b"ready")
    while True:
        arguments, fds = _order(control)
        if arguments is not None:
            names["prepare"](*map(decode, arguments))
        if not _clone():
            _run(control, names, header, *fds)
        for fd in fds:
            os.close(fd)
        _wait(control)
        control.send(ended)
        ctypes.memset(ended, 0, len(ended))


def _clone() -> bool:
    """Fork into a new process namespace. Return True in process 1, False in the test's."""
    process.value = -1
    ctypes.set_errno(0)
    flags = CLONE_NEWPID | CLONE_PIDFD | signal.SIGCHLD
    syscall(CLONE[os.uname().machine], flags, 0, ctypes.byref(process), 0, 0)
    _check(ctypes.get_errno())
    return process.value >= 0


def _preload(code: str) -> dict[str, Any]:
    """Run code that every test starts with, and return its names."""
    module = type(sys)("preload")
    sys.modules[module.__name__] = module
    exec(compile(code, "preload.py", "exec", dont_inherit=True), vars(module))  # noqa: S102
    return vars(module)


def _order(control: _socket.socket) -> tuple[Any, tuple[int, ...]]:
    """Return what `prepare` of the preloaded code is to be called with before the next test, if it is, and what that
    test reads and writes: job, standard input, output and error."""
    while True:
        message, ancillary, _, _ = control.recvmsg(1 << 18, 64)
        if not message:
            os._exit(0)
        if ancillary:  # else it is a wish to end a test that had just ended
            return json.loads(message), struct.unpack("4i", ancillary[0][2])


def _wait(control: _socket.socket) -> None:
    """Wait until a test has ended, and end it at a word from outside."""
    poll = select.poll()
    poll.register(process.value, select.POLLIN)
    poll.register(control, select.POLLIN)
    while process.value not in (ready := dict(poll.poll())):
        if control.fileno() in ready and not control.recv(16):
            os._exit(0)
        signal.pidfd_send_signal(process.value, signal.SIGKILL)
    os.close(process.value)
    wait4(-1, ended, 0, ctypes.byref(ended, 8))


# -- in the process of a test -----------------------------------------------------------------------------------------


def _run(
    control: _socket.socket,
    preloaded: dict[str, Any],
    refusals: bytes,
    source: int,
    stdin: int,
    stdout: int,
    stderr: int,
) -> NoReturn:
    """Run the answer on one test. Its result leaves on descriptor 1, or on 3 if a function is called."""
    code = 1
    try:
        job = json.loads(_everything(source))
        calls = "arguments" in job
        os.dup2(stdin, 0)
        os.dup2(stderr, 2)
        # Process 1's own /dev/null keeps flags that are set at it, which the next test would find.
        os.dup2(os.open("/dev/null", os.O_RDWR) if calls else stdout, 1)
        if calls:
            os.dup2(stdout, 3)
        _confine(job, refusals)
        control.send(b"started")
        os.closerange(4 if calls else 3, 4096)
        _execute(job, preloaded)
        code = 0
    except SystemExit as leave:
        code = 0 if leave.code in (None, 0) else 1
    except BaseException as error:
        _write(2, f"{type(error).__name__}: {error}"[:300].encode(errors="replace"))
    finally:
        os._exit(code)


def _confine(job: dict[str, Any], refusals: bytes) -> None:
    """Give up for good what the answer must not have."""
    # At the processor time comes SIGXCPU, which no kill from outside is; what survives that is killed at twice.
    time = resource.RLIMIT_CPU, job["cpu"], 2 * job["cpu"]
    for limit, soft, hard in ((resource.RLIMIT_AS, job["memory"], job["memory"]), time, *LIMITS):
        most = resource.getrlimit(limit)[1]
        bounds = (soft, hard) if most == resource.RLIM_INFINITY else (min(soft, most), min(hard, most))
        resource.setrlimit(limit, bounds)
    _check(capset(*NO_CAPABILITIES))
    _check(prctl(PR_SET_SECCOMP, 2, refusals, 0, 0))


def _execute(job: dict[str, Any], preloaded: dict[str, Any]) -> None:
    """Run the whole program as Python runs a script, or as a module whose function is then called."""
    calls = "arguments" in job
    sys.argv = ["answer.py"]
    module = type(sys)("answer" if calls else "__main__")
    sys.modules[module.__name__] = module  # dataclasses and pickle look there for what it defines
    names: dict[str, Any] = vars(module)
    names.update((name, value) for name, value in preloaded.items() if not name.startswith("__"))
    # Nobody trusts what runs from here on.
    try:
        exec(compile(job["code"], "answer.py", "exec", dont_inherit=True), names)  # noqa: S102
        if calls:
            result = _target(job["function"], names)(*map(decode, job["arguments"]))
            _write(3, json.dumps(encode(result)).encode())
    finally:
        if not calls:
            _leave()


def _leave() -> None:
    """End as an interpreter does: threads first, then what `atexit` knows, then what is still to be written."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()


def _target(function: str, names: dict[str, Any]) -> Any:
    """Return the function that a name or `Class.method` names; the class is made without arguments."""
    owner, _, method = function.rpartition(".")
    return getattr(names[owner](), method) if owner else names[method]


def _everything(fd: int) -> bytes:
    data = b""
    while more := os.read(fd, 1 << 20):
        data += more
    return data


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "a system call of the sandbox failed")


# -- values in JSON ---------------------------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """Return a Python value as JSON: what JSON has no form for becomes an object with one `$` key."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [encode(one) for one in value]
    if isinstance(value, tuple):
        return {"$tuple": [encode(one) for one in value]}
    if isinstance(value, set | frozenset):
        return {"$set": [encode(one) for one in value]}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encode(one) for key, one in value.items()}
        return {"$dict": [[encode(key), encode(one)] for key, one in value.items()]}
    raise TypeError(f"a result of type {type(value).__name__} cannot be compared")


def decode(value: Any) -> Any:
    """Return the Python value of what `encode` returned."""
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key == "$tuple":
            return tuple(decode(one) for one in inner)
        if key == "$set":
            return {decode(one) for one in inner}
        if key == "$bytes":
            return bytes.fromhex(inner)
        if key == "$dict":
            return {decode(one): decode(two) for one, two in inner}
    return {key: decode(inner) for key, inner in value.items()}


if __name__ == "__main__":
    main(bytes.fromhex(sys.argv[1]), sys.argv[2], sys.argv[3:])
