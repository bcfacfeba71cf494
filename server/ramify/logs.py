"""Log lines of the server and the trainer: one short line an event on standard error, times in UTC.

Whatever a line is made of may come from outside: a path, a header, a model's name, an answer, another program's error.
So the formatter escapes, once for every call there is, what could end a line, forge another or steer a terminal. Lines
of a traceback are indented, so that none of them can be taken for an event's.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType

FOREIGN = ("uvicorn", "asyncio")
"""Other people's loggers that write in our form, warnings and worse only."""
INDENT = "    "


def escaped(text: str) -> str:
    """The text with every character that is not printable as Python writes it, such as `\\n`, `\\x1b` and `\\u2028`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class EscapingFormatter(logging.Formatter):
    """Time, level, logger and message in one line, then the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        return escaped(super().formatMessage(record))

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(INDENT + escaped(line) for line in text.split("\n"))


def log_to_stderr(name: str, level: str) -> None:
    """Have the loggers under `name` and those of `FOREIGN` write to standard error.

    level: the least severe line of ours, such as `info`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter())
    for each in (name, *FOREIGN):
        logger = logging.getLogger(each)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper() if each == name else logging.WARNING)
