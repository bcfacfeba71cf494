"""A data set of your own: a file of JSON objects, one a line.

    {"prompt": "What is 1/4 + 1/4?", "answer": "1/2", "verifier": "math"}
    {"messages": [{"role": "user", "content": "…"}], "task": "exact", "problem": {"answer": "Paris"}, "group":
    "geo"}

`prompt` or `messages`; then `answer` with `verifier` (`exact`, `math` or another task whose problem has an `answer`),
or `task` with `problem`. `id` (default: the file's name and the line) and `group` (default: the task) are optional.
Blank lines are skipped.
The file is read line by line; every line is checked, also those that are not drawn.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.rewards import registry
from ramify.rewards.errors import BadDataset, BadProblem
from ramify.rewards.verifier import Example, Message

MAX_LINE_BYTES = 1 << 20
MAX_ROWS = 200_000
MAX_PROMPT = 200_000
"""Characters of a prompt, or of all messages of a chat together."""
MAX_MESSAGES = 64
ROLES = ("system", "user", "assistant")
MAX_DIGITS = 1_000
"""Characters of a number."""
MAX_LABEL = 200
"""Characters of an `id` or a `group`."""

FIELDS = ("prompt", "messages", "answer", "verifier", "task", "problem", "id", "group")


def sample(path: Path, count: int | None, seed: int) -> list[Example]:
    """Draw `count` rows of a file by `seed`, in the file's order; all of them for `None`. Raises `BadDataset`."""
    rows = enumerate(read(path))
    if count is None:
        return [example for _, example in rows]
    drawn = heapq.nsmallest(count, rows, key=lambda row: hashlib.sha256(f"{seed}:{row[0]}".encode()).digest())
    return [example for _, example in sorted(drawn, key=lambda row: row[0])]


def read(path: Path) -> Iterator[Example]:
    """Yield every row of a file. Raises `BadDataset` naming file, line and field."""
    ids: set[str] = set()
    with path.open("rb") as file:
        for number in range(1, MAX_ROWS + 1):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                break
            if line.strip():
                row = _Row(str(path), number, line)
                example = row.example()
                if example.id in ids:
                    raise row.bad("id", f"{example.id!r} is not unique")
                ids.add(example.id)
                yield example
        else:
            raise BadDataset(str(path), None, None, f"has more than {MAX_ROWS} lines")
    if not ids:
        raise BadDataset(str(path), None, None, "has no rows")


class _Row:
    """One line being read."""

    def __init__(self, source: str, number: int, line: bytes) -> None:
        self._source, self._number = source, number
        self._row = self._parsed(line)

    def bad(self, field: str | None, message: str) -> BadDataset:
        """Return the error for a field of this line."""
        return BadDataset(self._source, self._number, field, message)

    def example(self) -> Example:
        """Return the line as a checked example."""
        for field in self._row:
            if field not in FIELDS:
                raise self.bad(field[:50], f"is unknown; a row has some of {', '.join(FIELDS)}")
        prompt, messages = self._question()
        task, problem = self._task()
        return Example(
            id=self._label("id", f"{Path(self._source).name}:{self._number}"),
            prompt=prompt,
            messages=messages,
            task=task,
            problem=problem,
            group=self._label("group", task),
        )

    def _parsed(self, line: bytes) -> dict[str, Any]:
        if len(line) > MAX_LINE_BYTES:
            raise self.bad(None, f"has more than {MAX_LINE_BYTES} bytes")
        try:
            row = json.loads(
                line.decode("utf-8-sig"),
                parse_constant=self._no_constant,
                parse_int=_number(int),
                parse_float=_number(float),
                object_pairs_hook=_object,
            )
            flaw = _flaw(row, "")
        except RecursionError:
            raise self.bad(None, "is nested too deeply") from None
        except UnicodeDecodeError as error:
            raise self.bad(None, f"is not UTF-8: {error.reason} at byte {error.start}") from error
        except json.JSONDecodeError as error:
            raise self.bad(None, f"is not JSON: {error.msg} at column {error.colno}") from error
        if flaw is not None:
            raise self.bad(*flaw)
        if not isinstance(row, dict):
            raise self.bad(None, "must be a JSON object")
        return row

    def _no_constant(self, name: str) -> object:
        raise self.bad(None, f"is not JSON: {name}")

    def _question(self) -> tuple[str, tuple[Message, ...]]:
        if ("prompt" in self._row) == ("messages" in self._row):
            raise self.bad("prompt", "give either 'prompt' or 'messages'")
        if "prompt" in self._row:
            return self._text("prompt", self._row["prompt"], MAX_PROMPT), ()
        messages = self._row["messages"]
        if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_MESSAGES:
            raise self.bad("messages", f"must be a list of 1 to {MAX_MESSAGES} messages")
        chat = tuple(self._message(f"messages.{i}", message) for i, message in enumerate(messages))
        if sum(len(message.content) for message in chat) > MAX_PROMPT:
            raise self.bad("messages", f"have more than {MAX_PROMPT} characters together")
        return "", chat

    def _message(self, field: str, message: object) -> Message:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise self.bad(field, "must be an object with 'role' and 'content'")
        if message["role"] not in ROLES:
            raise self.bad(f"{field}.role", f"must be one of {', '.join(ROLES)}")
        content = self._text(f"{field}.content", message["content"], MAX_PROMPT)
        return Message(message["role"], content)

    def _task(self) -> tuple[str, dict[str, Any]]:
        short = "answer" in self._row or "verifier" in self._row
        if short == ("task" in self._row or "problem" in self._row):
            raise self.bad("task", "give either 'answer' and 'verifier', or 'task' and 'problem'")
        if short:
            verifiers = [
                name for name in registry.gradable() if "answer" in registry.verifier_of(name).model_fields
            ]
            return self._checked(
                self._choice("verifier", verifiers), {"answer": self._row.get("answer")}, inside=""
            )
        problem = self._row.get("problem", {})
        if not isinstance(problem, dict):
            raise self.bad("problem", "must be an object")
        return self._checked(self._choice("task", registry.names()), problem, inside="problem.")

    def _checked(self, task: str, problem: dict[str, Any], inside: str) -> tuple[str, dict[str, Any]]:
        try:
            registry.check(task, problem)
        except BadProblem as error:
            raise self.bad(f"{inside}{error.field}", error.message) from error
        return task, problem

    def _choice(self, field: str, names: Sequence[str]) -> str:
        name = self._row.get(field)
        if name not in names:
            raise self.bad(field, f"must be one of {', '.join(names)}")
        return str(name)

    def _label(self, field: str, default: str) -> str:
        return self._text(field, self._row[field], MAX_LABEL) if field in self._row else default

    def _text(self, field: str, value: object, longest: int) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.bad(field, "must be a string that is not blank")
        if len(value) > longest:
            raise self.bad(field, f"has {len(value)} characters; at most {longest} are allowed")
        return value


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Stands in a parsed line for a value that no caller may see."""

    message: str
    key: str = ""
    """The field of an object that is at fault; empty: the value itself."""


def _number(read: Callable[[str], float]) -> Callable[[str], object]:
    def checked(digits: str) -> object:
        if len(digits) > MAX_DIGITS:
            return _Flaw(f"is a number of {len(digits)} characters; at most {MAX_DIGITS} are allowed")
        number = read(digits)
        return number if isinstance(number, int) or math.isfinite(number) else _Flaw("is too large a number")

    return checked


def _object(pairs: list[tuple[str, Any]]) -> object:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            return _Flaw("is given twice", key)
        content[key] = value
    return content


def _flaw(value: object, place: str) -> tuple[str | None, str] | None:
    """Return the field and the fault of the first value that is refused; `None` if there is none."""
    if isinstance(value, _Flaw):
        return _inside(place, value.key)[:100] or None, value.message
    if isinstance(value, str) and not _is_text(value):
        return place or None, "holds half of a surrogate pair, which is no character"
    if isinstance(value, dict):
        if not all(map(_is_text, value)):
            return place or None, "has a field whose name holds half of a surrogate pair"
        return next(filter(None, (_flaw(inner, _inside(place, key)) for key, inner in value.items())), None)
    if isinstance(value, list):
        return next(
            filter(None, (_flaw(inner, _inside(place, str(i))) for i, inner in enumerate(value))), None
        )
    return None


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place and key else place + key


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)
