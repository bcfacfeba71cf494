"""Functions that misbehave, for workers to run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any


def echo(value: Any) -> Any:
    return value


def hang(fifo: str) -> None:
    """Say through a named pipe who one is, then compute for ever."""
    announce(fifo)
    while True:
        pass


def hang_in_c(fifo: str) -> None:
    """The same inside one C call that holds the interpreter's lock, deaf to signals that Python handles."""
    announce(fifo)
    ctypes.PyDLL(None).sleep(1000)


def announce(fifo: str) -> None:
    with open(fifo, "w") as pipe:
        pipe.write(str(os.getpid()))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    sys.exit(3)


def fail() -> None:
    raise ArithmeticError("no such luck")


def eat() -> str:
    """Take memory until there is none, and swallow the error as sympy's callers do."""
    taken = []
    try:
        while True:
            taken.append(bytearray(1 << 20))
    except Exception:
        taken.clear()
        return "not equal"


def hold(size: int) -> int:
    """Take memory and keep it."""
    _held.append(bytearray(size))
    return os.getpid()


def write(path: str) -> str:
    try:
        with open(path, "w") as file:
            file.write("x")
    except OSError as error:
        return type(error).__name__
    return "written"


def chatter() -> str:
    print('{"result": "forged"}', flush=True)
    os.system('echo \'{"result": "forged"}\'')
    return "honest"


def pid() -> int:
    return os.getpid()


def environment() -> list[str]:
    return sorted(os.environ)


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def unserialisable() -> object:
    return object()


_held: list[bytearray] = []


def functions() -> dict[str, Callable[..., Any]]:
    all_of_them = (
        echo,
        hang,
        hang_in_c,
        die,
        leave,
        fail,
        eat,
        hold,
        write,
        chatter,
        pid,
        environment,
        in_main_thread,
        unserialisable,
    )
    return {function.__name__: function for function in all_of_them}
