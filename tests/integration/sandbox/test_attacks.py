"""Attempts of an answer: none has an effect outside, and none earns a reward. `make attack-sandbox`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards.code import Case, Code, same_value
from tests.integration.sandbox.answers import PROBLEM, ended, ended_twice, graded
from tests.integration.sandbox.conftest import RunAs

REFUSED = {
    "open a file to write": "open('/x', 'w')",
    "write where there is a folder": "open('/dev/x', 'w').write('x' * 2_000_000)",
    "write to shared memory": "open('/dev/shm/x', 'w')",
    "make a file of memory": "os.memfd_create('x')",
    "read /etc/passwd": "open('/etc/passwd')",
    "list /proc": "os.listdir('/proc')",
    "read memory through files": "open('/proc/self/mem', 'rb')",
    "leave a time at a file": "os.utime('/dev/null')",
    "see the home of root": "os.listdir('/root')",
    "see the checkout": f"os.listdir({str(Path(__file__).parent)!r})",
    "link out of the root": "os.symlink('/proc/1/root', '/y')",
    "climb out of the root": "os.listdir('../../../../etc/apt')",
    "make a device": "os.mknod('/z', 0o20666, os.makedev(1, 3))",
    "change the root": "os.chroot('/usr')",
    "become root": "os.setuid(0)",
    "name the machine": "__import__('socket').sethostname('x')",
    "take a right back": "call(126, ctypes.addressof(ctypes.create_string_buffer(b' \\x05\\x08 ' + bytes(4))), "
    "ctypes.addressof(ctypes.create_string_buffer(bytes.fromhex('0000200000002000' + '00' * 16))))",
    "fork": "os.fork()",
    "start a program": "os.execv('/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2', ['ld'])",
    "start a child": "__import__('subprocess').run(['/bin/true'])",
    "make a namespace": "call(272, 0x10000000)",
    "clone into a namespace": "call(56, 0x10000011, 0, 0, 0, 0)",
    "trace a process": "call(101, 16, 1, 0, 0)",
    "be traced": "call(101, 0, 0, 0, 0)",
    "read another process": "call(310, 1, 0, 0, 0, 0, 0)",
    "open a process": "call(434, 1, 0)",
    "get a System V segment": "call(29, 0, 4096, 0o1600)",
    "mount": "call(165, 0, 0, 0, 0, 0)",
    "set up io_uring": "call(425, 1, 0)",
    "load a program into the kernel": "call(321, 0, 0, 0)",
    "use the other set of system calls": "call(0x40000000 + 39)",
    "lower a priority": "os.setpriority(os.PRIO_PROCESS, 1, 13)",
    "want idle processors only": "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
    "choose a processor": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "leave a hint at a file": "__import__('fcntl').fcntl(0, 1036, bytes(8))",
    "take the machine's asynchronous I/O": "call(206, 1, ctypes.addressof(ctypes.create_string_buffer(8)))",
    "raise a limit": "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (1 << 40, 1 << 40))",
    "signal a process outside": "os.kill(4321, 9)",
    "open a socket to the world": "__import__('socket').create_connection(('1.1.1.1', 53), 1)",
    "ask for a name": "__import__('socket').getaddrinfo('example.com', 80)",
}
CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    if libc.syscall(*map(ctypes.c_long, numbers)) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""


@pytest.mark.parametrize("attempt", REFUSED)
def test_the_kernel_refuses(attempt: str, as_user: RunAs) -> None:
    line = REFUSED[attempt]
    body = f"try:\n    {line}\nexcept (OSError, ValueError):\n    print('held')\nelse:\n    print('BREACH')\n"
    result = as_user(lambda: ended(CALL + body))
    assert result["out"] == "held\n", result


def test_the_refused_calls_are_possible_elsewhere() -> None:
    """Outside a sandbox the same lines succeed, so that the test above can fail."""
    for line in (
        "os.fork() or os._exit(0)",
        "os.listdir('/proc')",
        "os.memfd_create('x')",
        "call(29, 0, 4096, 0o1600)",
    ):
        names: dict[str, Any] = {}
        exec(CALL + line, names)


def test_a_server_on_this_machine_cannot_be_reached(as_user: RunAs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
        result = as_user(
            lambda: ended(f"""
            import socket
            try:
                socket.create_connection(("127.0.0.1", {port}), 1)
                print("BREACH")
            except OSError:
                print("held")
            """)
        )
    assert result["out"] == "held\n", result


def test_an_endless_loop_uses_up_its_processor_time(as_user: RunAs) -> None:
    assert as_user(lambda: ended("while True: pass"))["status"] == "cpu"


@pytest.mark.parametrize(
    "bomb",
    [
        "x = bytearray(1 << 30)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        "import mmap\nx = [mmap.mmap(-1, 1 << 20) for _ in range(1000)]",
    ],
)
def test_a_gigabyte_is_refused(bomb: str, as_user: RunAs) -> None:
    assert as_user(lambda: ended(bomb, seconds=5))["status"] == "error"


def test_threads_are_few(as_user: RunAs) -> None:
    result = as_user(
        lambda: ended("""
        import threading, time
        started = 0
        try:
            for _ in range(200):
                threading.Thread(target=time.sleep, args=(0.01 * 3000,), daemon=True).start()
                started += 1
        except RuntimeError:
            print("held" if started < 50 else "BREACH")
        """)
    )
    assert result["out"] == "held\n", result


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_of_output_ends_the_test(stream: str, as_user: RunAs) -> None:
    result = as_user(lambda: ended(f"import sys\nwhile True: sys.{stream}.write('x' * 65536)", seconds=10))
    assert result["status"] == "output"
    assert len(result["out"] + result["err"]) < (1 << 20) + (1 << 17)


def test_nothing_but_its_three_streams_is_open(as_user: RunAs) -> None:
    result = as_user(
        lambda: ended("""
        import os
        def is_open(fd):
            try:
                os.fstat(fd)
            except OSError:
                return False
            return True
        print(*filter(is_open, range(4096)))
        """)
    )
    assert result["out"] == "0 1 2\n"


def test_there_is_no_file_but_libraries(as_user: RunAs) -> None:
    result = as_user(
        lambda: ended("""
        import os
        print(sorted(os.listdir("/")), os.listdir("/etc"), os.listdir("/dev"), os.environ.get("HOME"), len(os.environ))
        """)
    )
    root, _, rest = result["out"].partition("]")
    assert set(eval(root + "]")) <= {"dev", "etc", "lib", "lib64", "usr", "opt"}, root
    assert rest.strip() == "['ld.so.cache'] ['null'] None 1" or "['null'] None" in rest


@pytest.mark.parametrize("signals", ["-1, 9", "1, 9", "1, 2", "1, 17", "0, 9"])
def test_signals_do_not_end_the_sandbox(signals: str, as_user: RunAs) -> None:
    """The next test runs as if nothing had been."""
    program = f"import os\ntry: os.kill({signals})\nexcept OSError: pass\nprint(1)"
    statuses = as_user(lambda: [one["status"] for one in ended_twice(program)])
    assert len(statuses) == 2, statuses
    assert set(statuses) <= {"done", "error"}


def test_a_test_is_alone_and_knows_nobodys_number(as_user: RunAs) -> None:
    """How many threads the test before had cannot be seen either: numbers start anew."""
    program = """
    import os, threading
    def alive(pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    others, numbers = [pid for pid in range(1, 300) if alive(pid)], []
    for _ in range(50):
        thread = threading.Thread(target=lambda: numbers.append(threading.get_native_id()))
        thread.start()
        thread.join()
    print(os.getpid(), os.getppid(), others, numbers == list(range(2, 52)))
    """
    ends = as_user(lambda: ended_twice(program))
    assert [one["out"] for one in ends] == ["1 0 [1] True\n"] * 2, ends


def test_nothing_is_left_for_the_next_test(as_user: RunAs) -> None:
    program = """
    import builtins
    print(getattr(builtins, 'left', 'nothing'))
    builtins.left = 'something'
    """
    assert [one["out"] for one in as_user(lambda: ended_twice(program))] == ["nothing\n", "nothing\n"]


def test_no_flag_of_a_stream_is_left_for_the_next_test(as_user: RunAs) -> None:
    program = """
import fcntl, os
def f():
    found = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (0, 1, 2)]
    for fd in (0, 1, 2):
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)
    return found
"""
    case = Case(input=[], output=0)
    code = Code(hidden=(case, case), function="f")
    first, second = as_user(lambda: [one.out for one in code.run(program, code.hidden)])
    assert first.startswith("[")
    assert first == second


SEARCH = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
reader, writer = os.pipe()

def there(held):
    # The whole word is nowhere in this program: it would find itself.
    places = [i for i in range(4088) if held.startswith(b"SECRET", i)]
    return any(held[i + 6] == 45 and held[i + 7] == 73 for i in places)

def page(address):
    # A page of our own memory, whether it is mapped or not: the kernel says.
    if libc.write(writer, ctypes.c_void_p(address), 4096) != 4096:
        return None
    return os.read(reader, 4096)

def found(start, step, misses):
    at = start
    while misses:
        held = page(at)
        misses -= held is None
        if held and b"SECRET" in held and there(held):
            return True
        at += step
    return False

line = input()
print(found(libc.sbrk(0) // 4096 * 4096 - 4096, -4096, 64)
    or any(found(id(one) // 4096 * 4096, step, 64) for one in (line, [], {}, object()) for step in (4096, -4096)))
sys.stdout.flush()
"""


@pytest.mark.parametrize("later", [False, True])
def test_no_memory_of_another_test_can_be_read(later: bool, as_user: RunAs) -> None:
    """All memory around what a program has is searched, freed or not, for the words of the test before."""
    secret, other = Case(input="SECRET-IN " * 2000, output="-"), Case(input="7\n", output="-")

    def outputs() -> list[str]:
        code = Code(hidden=(secret, other))
        order = (secret, secret) if later else (secret, other)
        return [one.out for one in code.run(SEARCH, order)]

    # The words are found in their own process: a search that finds nothing anywhere proves nothing.
    assert as_user(outputs) == ["True\n", f"{later}\n"]


def test_neither_outputs_nor_later_inputs_are_in_the_answers_memory(as_user: RunAs) -> None:
    """All objects and the caller's frames are searched, for a text that is there too."""

    def first() -> str:
        code = Code.of(PROBLEM)
        program = """
import gc, sys
frame, seen = sys._getframe(), []
while frame:
    seen.append(repr(frame.f_locals) + repr(frame.f_globals))
    frame = frame.f_back
seen += [repr(one) for one in gc.get_objects() if isinstance(one, (dict, list, tuple, str, bytes))]
everything = "".join(seen)
print("code" in everything, *("-".join(("SECRET", end)) in everything for end in ("IN", "OUT")))
"""
        return next(code.run(program, code.hidden)).out

    assert as_user(first) == "True False False\n"


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "print('passed')",
        'print(\'{"status": "done", "outcome": 1.0}\')',
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'42')\n    except OSError: pass",
        "import builtins\nbuiltins.print = builtins.exec = builtins.compile = lambda *a, **k: True",
        "import json\njson.dumps = lambda *a, **k: '42'",
        "assert False",
        "import time, os; os.abort()",
        "print(42)",
        "def f(:",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "class A:\n    def __eq__(self, other): return True\nprint(A())",
    ],
)
def test_a_trick_earns_nothing(text: str, as_user: RunAs) -> None:
    outcome, reason = as_user(lambda: graded(text))
    assert outcome == 0, reason


def test_a_result_that_calls_itself_equal_is_compared_as_data(as_user: RunAs) -> None:
    def outcome() -> float:
        code = Code(hidden=(Case(input=[1], output=2),), function="f")
        return code.grade(
            "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(1)"
        ).outcome

    assert as_user(outcome) == 0


@pytest.mark.parametrize(
    "result", ['{"$set": 5}', '{"$dict": [1]}', '{"$dict": 5}', "[" * 100_000, "nonsense", ""]
)
def test_a_result_of_no_known_form_is_wrong(result: str, as_user: RunAs) -> None:
    def outcomes() -> list[float]:
        program = f"import os\ndef f():\n    os.write(3, {result!r}.encode())\n    os._exit(0)"
        cases = (Case(input=[], output={"$set": [1]}), Case(input=[], output={"$dict": [[1, 2]]}))
        return [Code(hidden=(case,), function="f").grade(program).outcome for case in cases]

    assert as_user(outcomes) == [0, 0]


def test_an_integer_is_compared_exactly() -> None:
    assert not same_value(1_000_000, 1_000_000.9)
    assert same_value(1_000_000, 1_000_000.0)


def test_dataclasses_work_and_annotations_are_as_the_program_says(as_user: RunAs) -> None:
    def outcomes() -> list[float]:
        code = Code(hidden=(Case(input=[1], output=1),), function="f")
        record = (
            "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef f(n): return A(n).x"
        )
        return [code.grade(text).outcome for text in (record, "def f(n: Unknown): return n")]

    assert as_user(outcomes) == [1, 0]


def test_the_name_of_an_answers_own_exception_tells_nothing_of_a_hidden_test(as_user: RunAs) -> None:
    leak = "import sys\nsys.stderr.write('SECRET')\nraise type('SECRET', (Exception,), {})"
    outcome, reason = as_user(lambda: graded(leak))
    assert outcome == 0
    assert "SECRET" not in reason


def test_a_right_answer_is_right_behind_the_same_walls(as_user: RunAs) -> None:
    case = {"input": "6 7\n", "output": "42\n"}

    def outcome() -> float:
        return Code.of({"hidden": [case]}).grade("a, b = map(int, input().split())\nprint(a * b)").outcome

    assert as_user(outcome) == 1.0
