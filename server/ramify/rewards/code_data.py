"""Programming problems from the files of others: HumanEval, MBPP and LiveCodeBench, as JSON lines.

| data set | fields that are read |
|---|---|
| `code:humaneval?file=…` | `task_id`, `prompt`, `test`, `entry_point` |
| `code:mbpp?file=…` | `task_id`, `text` or `prompt`, `test_list`, `test_setup_code`, `test_imports` |
| `code:livecodebench?file=…` | `question_id`, `question_content`, `starter_code`, `public_test_cases`, … |

Tests that are assertions become calls with literal arguments and what must come out, because nothing but the arguments
may enter the sandbox (`code_assertions`). A problem with a test of another kind is left out, and the log names it: what
is graded is graded by all of its tests. Private tests of LiveCodeBench are pickled text: the text is read from the
pickle's opcodes, which are not run. Tests beyond `MAX_TESTS` or `MAX_BYTES` are left out, the longest first.
"""

from __future__ import annotations

import ast
import base64
import json
import logging
import pickletools
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ramify.rewards.code_assertions import UnreadableTest, calls, function_of
from ramify.rewards.verifier import Example, Message

logger = logging.getLogger(__name__)
MAX_LINE = 256 << 20
"""Bytes of a line."""
MAX_UNPACKED = 256 << 20
"""Bytes of compressed tests once they are unpacked."""
MAX_TESTS = 100
MAX_BYTES = 400_000
"""Bytes of a problem's hidden tests together, as JSON."""
IMPORTS = "\n".join(
    f"from {module} import *"
    for module in ("typing", "collections", "functools", "itertools", "heapq", "bisect", "math")
)
"""Imports that programs for LiveCodeBench's functions take for granted."""
ASKED = "Answer with one block of Python code, fenced by ```python and ```."

Test = dict[str, Any]
Row = Mapping[str, Any]


def read(split: str, options: Mapping[str, str]) -> Iterator[Example]:
    """Yield the problems of a file. Raises `ValueError` naming the line."""
    if set(options) != {"file"}:
        raise ValueError(f"write code:{split}?file=PATH")
    path = Path(options["file"])
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                yield READERS[split](row)
            except UnreadableTest as why:
                name = row.get("task_id", row.get("question_id"))
                logger.warning("%s: problem %s (line %d) is left out: %s", path, name, number, why)
            except (ValueError, KeyError, TypeError, SyntaxError, zlib.error) as error:
                kind = "has no field" if isinstance(error, KeyError) else f"{type(error).__name__}:"
                raise ValueError(f"{path}, line {number} is no row of {split}: {kind} {error}") from error


def _humaneval(row: Row) -> Example:
    checks = [node for node in ast.parse(row["test"]).body if isinstance(node, ast.FunctionDef)]
    hidden = [test for check in checks for test in calls(check.body, "candidate")]
    question = f"Complete this function. {ASKED}\n\n```python\n{row['prompt']}```"
    return _example(
        row["task_id"],
        question,
        [],
        hidden,
        function=row["entry_point"],
        prelude=row["prompt"],
        group="humaneval",
    )


def _mbpp(row: Row) -> Example:
    body = [statement for text in row["test_list"] for statement in ast.parse(text).body]
    function = function_of(body)
    tests = calls(body, function)
    setup = "\n".join([*row.get("test_imports", []), row.get("test_setup_code", "")]).strip()
    statement = row.get("text") or row["prompt"]
    question = f"{statement}\nIt must pass this test:\n\n{row['test_list'][0].strip()}\n\n{ASKED}"
    prelude = f"{setup}\n" if setup else ""
    first, rest = tests[:1], tests[1:]
    return _example(
        f"mbpp/{row['task_id']}", question, first, rest, function=function, prelude=prelude, group="mbpp"
    )


def _livecodebench(row: Row) -> Example:
    name = json.loads(row["metadata"] or "{}").get("func_name", "")
    starter = row.get("starter_code") or ""
    function = f"Solution.{name}" if name and "class Solution" in starter else name
    public, hidden = (
        [_livecodebench_test(test, function) for test in tests]
        for tests in (json.loads(row["public_test_cases"]), _unpacked(row["private_test_cases"]))
    )
    how = (
        f"Complete this code:\n\n```python\n{starter}\n```\n"
        if starter
        else "Read standard input and print.\n"
    )
    return _example(
        f"livecodebench/{row['question_id']}",
        f"{row['question_content']}\n\n{how}\n{ASKED}",
        public,
        hidden,
        function=function,
        prelude=f"{IMPORTS}\n" if function else "",
        group=row.get("difficulty") or "livecodebench",
    )


READERS: Mapping[str, Callable[[Row], Example]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "livecodebench": _livecodebench,
}


def _example(
    name: str,
    question: str,
    public: list[Test],
    hidden: list[Test],
    *,
    function: str,
    prelude: str,
    group: str,
) -> Example:
    public = [test for test in public if function or str(test["output"]).strip()][:20]
    hidden = _bounded([test for test in hidden if function or str(test["output"]).strip()])
    if not hidden and not public:
        raise UnreadableTest(f"{name} has no test that is not blank")
    problem = {"public": public, "hidden": hidden, "function": function, "prelude": prelude}
    return Example(messages=(Message("user", question),), problem=problem, group=group, id=name)


def _bounded(tests: list[Test]) -> list[Test]:
    """Return the tests in their order, without the longest if they are too many or too long."""
    sizes = [len(json.dumps(test)) for test in tests]
    kept, total = set[int](), 0
    for i in sorted(range(len(tests)), key=lambda i: sizes[i])[:MAX_TESTS]:
        total += sizes[i]
        if total <= MAX_BYTES:
            kept.add(i)
    return [test for i, test in enumerate(tests) if i in kept]


# -- LiveCodeBench ----------------------------------------------------------------------------------------------------


def _livecodebench_test(test: Row, function: str) -> Test:
    if not function:
        return {"input": test["input"], "output": test["output"]}
    return {
        "input": [json.loads(line) for line in test["input"].splitlines() if line.strip()],
        "output": json.loads(test["output"]),
    }


def _unpacked(packed: str) -> list[Row]:
    """Return tests that are JSON, or base64 of zlib of a pickle of JSON."""
    if packed.lstrip().startswith("["):
        return list(json.loads(packed))
    unpacker = zlib.decompressobj()
    pickled = unpacker.decompress(base64.b64decode(packed), MAX_UNPACKED)
    texts = [value for _, value, _ in pickletools.genops(pickled) if isinstance(value, str)]
    if len(texts) != 1:
        raise ValueError("private_test_cases is not one pickled text")
    return list(json.loads(texts[0]))
