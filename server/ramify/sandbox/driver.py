"""The inside of a sandbox: process 1, which runs an answer on one test after another and hands back what it printed.

`session` passes this file's text to a bare interpreter with the standard library alone, so it imports nothing of ours.
It knows no expected output: it cannot say whether an answer is right, and neither can an answer that takes it over.
Frames go both ways: four bytes of length, then JSON.

Each test runs in a fork with limits and a system call filter of its own; whatever it leaves behind is killed before
the next test is asked for. A nonce follows each test and is read after the fork, so the answer's memory never has it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import struct
import sys
import time

TYPE_CHECKING = False  # typing itself takes a tenth of the start
if TYPE_CHECKING:
    from typing import Any, NoReturn

NEVER_X86 = (
    "29 30 31 41 64 68 101 135 141 154 155 161 165 166 206 240 246 248 249 250 251 253 272 278 294 298 300"
    " 303 304 308 310 311 312 319 321 323"
)
NEVER_ARM = (
    "0 26 30 39 40 41 51 75 92 97 104 117 140 180 186 190 194 195 196 198 217 218 219 241 262 264 265 268 270 271 272"
    " 279 280 282"
)
CALLS = {
    "x86_64": (0xC000003E, NEVER_X86, "57 58 59 322", "142 144 203 302 314", 56),
    "aarch64": (0xC00000B7, NEVER_ARM, "221 281", "118 119 122 261 274", 220),
}
"""By machine: its audit number; the system calls nobody here may make (shared memory, message queues, semaphores,
sockets, ptrace, personality, mounts, namespaces, keys, watches, other processes' memory, memory files, BPF,
userfaultfd, handles of files, priorities, contexts of asynchronous I/O, of which the machine has few); those an answer
may not make (fork, vfork, execve, execveat); those that it may make for itself alone, whose first argument is a process
(scheduling, limits): process 1 is of the same user; the number of clone."""
CALLS_OF_ALL = "425 426 427 428 429 430 431 432 433 434 438 442 447"
"""The same numbers everywhere: io_uring, new mounts, descriptors of processes, secret memory."""
CLONE3 = 435
NEW_NAMESPACES = 0x7E020000
CLONE_THREAD = 0x10000
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
PR_SET_DUMPABLE, PR_SET_SECCOMP = 4, 22
THREADS = 16
MAX_ERROR = 4_000
"""Bytes of standard error that are kept."""

prctl = ctypes.CDLL(None, use_errno=True).prctl


def main() -> None:
    """Read the answer, then run it on each test that comes, until standard input ends."""
    # Nobody may look into this process, and no signal from inside may end it: it is process 1.
    _check(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _install(_filter(answer=False))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)

    answer = _receive(source)
    answer["filter"] = _filter(answer=True)
    try:
        answer["names"] = _preload(answer.pop("preload"), answer.pop("folders"))
    except Exception as error:
        _send(sink, {"failed": f"{type(error).__name__}: {error}"[:300]})
        return
    gc.freeze()  # so that a fork copies less
    _send(sink, {"ready": answer.pop("nonce")})
    while True:
        test = _receive(source)
        if test["prepare"] is not None:
            answer["names"]["prepare"](*map(decode, test["prepare"]))
        pid, pipes = _start(answer, test)
        nonce = _receive(source)["nonce"]
        _send(sink, {**_watch(pid, pipes, test, answer), "nonce": nonce})


def _preload(code: str, folders: list[str]) -> dict[str, Any]:
    """Run code that every test's fork starts with, and return its names. It is the caller's own, not an answer's."""
    if not code:
        return {}
    sys.path += folders
    module = type(sys)("preload")
    sys.modules[module.__name__] = module
    exec(compile(code, "preload.py", "exec", dont_inherit=True), vars(module))  # noqa: S102
    return vars(module)


# -- outside the fork -------------------------------------------------------------------------------------------------


def _start(answer: dict[str, Any], test: dict[str, Any]) -> tuple[int, tuple[int, int, int]]:
    (stdin, feed), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _run(answer, test, stdin, stdout, stderr)
    for fd in (stdin, stdout, stderr):
        os.close(fd)
    return pid, (feed, out, err)


def _watch(
    pid: int, pipes: tuple[int, int, int], test: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    """Feed the answer and collect what it writes until it ends or is over a limit, then end all that it left."""
    feed, out, err = pipes
    for fd in pipes:
        os.set_blocking(fd, False)
    rest = test["stdin"].encode() if "stdin" in test else b""
    kept = {out: b"", err: b""}
    written, status, until = 0, "", time.monotonic() + answer["wall"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    for fd in (out, err, wake):
        poll.register(fd, select.POLLIN)
    poll.register(feed, select.POLLOUT)
    ended, feeding = None, True
    while not status and ended is None:
        events = poll.poll(max(0.0, until - time.monotonic()) * 1000)
        for fd, _ in events:
            if fd == feed:
                rest = _feed(feed, rest)
                if not rest:
                    feeding = False
                    poll.unregister(feed)
                    os.close(feed)
            elif fd == wake:
                _read(wake)
            else:
                data = _read(fd)
                written += len(data or b"")
                kept[fd] = (kept[fd] + (data or b""))[: answer["output"] if fd == out else MAX_ERROR]
                if data == b"":
                    poll.unregister(fd)
        if written > answer["output"]:
            status = "output"
        elif time.monotonic() >= until:
            status = "wall"
        done, code = os.waitpid(pid, os.WNOHANG)
        ended = code if done else None
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)

    # Nothing of this test may live on. A process cannot fork once it is to be killed, so this ends.
    _end_all()
    while written <= answer["output"] and (data := _read(out)):
        written += len(data)
        kept[out] += data
    for fd in (out, err, wake, woken, *([feed] if feeding else [])):
        os.close(fd)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The kernel ends a process a tick or two early by this count. A failure near the limit is a failure either way.
    if cpu >= 0.9 * answer["cpu"] and (status or ended):
        status = "cpu"
    elif written > answer["output"]:
        status = "output"
    return {
        "status": status or ("error" if ended else "done"),
        "out": kept[out].decode(errors="replace"),
        "err": kept[err].decode(errors="replace"),
        "cpu": cpu,
    }


def _end_all() -> None:
    while True:
        try:  # noqa: SIM105 - contextlib would take a fifth of the start
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _feed(fd: int, rest: bytes) -> bytes:
    try:
        return rest[os.write(fd, rest[:65536]) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return b""


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def _receive(fd: int) -> dict[str, Any]:
    (size,) = struct.unpack(">I", _exactly(fd, 4))
    frame: dict[str, Any] = json.loads(_exactly(fd, size))
    return frame


def _exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def _send(fd: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


# -- inside the fork --------------------------------------------------------------------------------------------------


def _run(answer: dict[str, Any], test: dict[str, Any], stdin: int, stdout: int, stderr: int) -> NoReturn:
    """Run the answer on one test. Its result leaves on descriptor 1, or on 3 if a function is called."""
    code = 1
    try:
        calls = "args" in test
        os.dup2(stdin, 0)
        os.dup2(stderr, 2)
        if calls:
            os.dup2(stdout, 3)
        else:
            os.dup2(stdout, 1)
        os.closerange(4 if calls else 3, 4096)
        _limit(answer)
        _install(answer["filter"])
        sys.argv = ["answer.py"]
        module = type(sys)("answer" if calls else "__main__")
        sys.modules[module.__name__] = module  # where dataclasses and pickle look for what it defines
        names: dict[str, Any] = vars(module)
        names.update((name, value) for name, value in answer["names"].items() if not name.startswith("__"))
        try:
            # Nobody trusts what runs from here on.
            exec(compile(answer["code"], "answer.py", "exec", dont_inherit=True), names)  # noqa: S102
            if calls:
                result = _target(answer["function"], names)(*map(decode, test["args"]))
                _write_all(3, json.dumps(encode(result)).encode())
        except SystemExit as leave:
            code = 0 if leave.code in (None, 0) else 1
        else:
            code = 0
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        sys.stdout.flush()
    except BaseException as error:
        code = 1
        _write_all(2, f"{type(error).__name__}: {error}"[:300].encode(errors="replace"))
    finally:
        os._exit(code)


def _limit(answer: dict[str, Any]) -> None:
    for limit, value in (
        (resource.RLIMIT_AS, answer["memory"]),
        (resource.RLIMIT_CPU, answer["cpu"]),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_NPROC, THREADS),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _target(function: str, names: dict[str, Any]) -> Any:
    """Return the function that a name or `Class.method` names; the class is made without arguments."""
    owner, _, method = function.rpartition(".")
    return getattr(names[owner](), method) if owner else names[method]


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


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
            return tuple(decode(inner))
        if key == "$set":
            return set(decode(inner))
        if key == "$bytes":
            return bytes.fromhex(inner)
        if key == "$dict":
            return {decode(one): decode(two) for one, two in inner}
    return {key: decode(inner) for key, inner in value.items()}


# -- the system call filter -------------------------------------------------------------------------------------------


def _filter(*, answer: bool) -> bytes:
    """Return the program by which the kernel refuses system calls: a denied one fails with EPERM."""
    audit, never, not_answers, own, clone = CALLS[os.uname().machine]
    denied = f"{never} {CALLS_OF_ALL} {not_answers if answer else ''}"
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, KILL), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, EPERM)]  # the second set of calls that x86 has
    program += [
        (equal, 0, 1, CLONE3),
        (give, 0, 0, ENOSYS),
    ]  # its flags cannot be seen; libc then takes clone
    for number in map(int, denied.split()):
        program += [(equal, 0, 1, number), (give, 0, 0, EPERM)]
    for number in map(int, own.split()):
        program += [(equal, 0, 4, number), (load, 0, 0, 16), (equal, 0, 1, 0)]
        program += [(give, 0, 0, ALLOW), (give, 0, 0, EPERM)]
    program += [(equal, 1, 0, clone), (give, 0, 0, ALLOW), (load, 0, 0, 16)]
    program += [(any_bit, 0, 1, NEW_NAMESPACES), (give, 0, 0, EPERM)]
    if answer:
        program += [(any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, EPERM)]
    program += [(give, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in program)


def _install(code: bytes) -> None:
    """Filter this process's calls for good. Raises if that cannot be done."""
    held = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held)))
    _check(prctl(PR_SET_SECCOMP, 2, header, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


if __name__ == "__main__":
    main()
