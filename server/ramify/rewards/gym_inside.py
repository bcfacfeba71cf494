"""The inside of a sandbox of the task `reasoning-gym`: the library, its data sets and their scorers.

`gym` passes this file's text to a sandbox, where it is loaded once and imports nothing of ours; each call of `items` or
`grade` is then a fork. Nobody trusts the answer that `grade` is given, and nine of the library's scorers evaluate it:
`_tame` has them read it instead, so that a score stays the scorer's. Should an answer get through, the walls are the
sandbox's.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import enum
import json
import keyword
import os
import re
import sys
import time
import types
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

UNSEEN = (
    *("matplotlib", "matplotlib.pyplot", "matplotlib.animation", "matplotlib.collections"),
    *("mpl_toolkits", "mpl_toolkits.mplot3d", "mpl_toolkits.mplot3d.Axes3D"),
)
"""Modules that one of the library's requirements draws with: left out, they save half of its import."""
SECONDS = 2.0
"""Processor time after which `items` hands back what it has made so far."""
MAX_BYTES = 300_000
"""JSON of the items after which it does too."""
KEPT = 32
"""Data sets that stay in memory."""
OURS = ("seed", "size")
"""Fields of the library's configurations that are not a caller's."""

_named: set[str] = set()
"""Words of the reference answer that is compared with: those an answer may have as well."""

CALCULATION = re.compile(r"[\w\s+\-*/^(),!]|\.(?!\s*[^\W\d])", re.ASCII)
"""A character of a calculation; a point only in a number, never before a name."""
WORD = re.compile(r"[^\W\d]\w*", re.ASCII)
_FUNCTIONS = """
sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh asinh acosh atanh exp log ln sqrt abs Abs pi E I
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Names that mean something and that a calculation may have."""


def load() -> None:
    """Import the library, which takes seconds, and tame it."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in UNSEEN:
        sys.modules[name] = types.ModuleType(name)
    for name in UNSEEN:
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    import reasoning_gym  # noqa: F401

    _tame()


def prepare(name: str, options: str, seed: int = 0, size: int = 1) -> None:
    """Make a data set for the calls to come; `options` are JSON. If it cannot be made, the call says why."""
    with contextlib.suppress(Exception):
        _data(name, options, seed, size)


def items(name: str, options: str, seed: int, size: int, start: int) -> dict[str, Any]:
    """Return {"items": …}, the problems from `start` on, as many as the limits allow; or {"refused": why}."""
    try:
        data = _data(name, options, seed, size)
    except Exception as error:  # its authors check by assertions
        return {"refused": str(error) or type(error).__name__}
    made: list[Any] = []
    room = MAX_BYTES
    for index in range(start, size):
        made.append(_plain(data[index]))
        room -= len(repr(made[-1]))
        if room <= 0 or time.process_time() > SECONDS:
            break
    return {"items": made}


def grade(name: str, options: str, entry: dict[str, Any], answer: str) -> tuple[float, str]:
    """Return the scorer's score of an answer and what to say about it.

    Raises if the problem itself cannot be scored: then nothing is known about the answer.
    """
    data = _data(name, options, 0, 1)
    _named.update(WORD.findall(str(entry["answer"])))
    try:
        return float(data.score_answer(answer, entry)), ""
    except (MemoryError, OSError, ImportError):
        raise
    except Exception as error:  # some scorers do not expect text that is no answer
        data.score_answer(entry["answer"], entry)
        return 0.0, f"the scorer cannot read the answer: {type(error).__name__}: {error}"


# -- configurations ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=KEPT)
def _data(name: str, options: str, seed: int, size: int) -> Any:
    from reasoning_gym.factory import DATASETS

    config = _configured(name, json.loads(options), seed, size)
    if hasattr(config, "validate"):
        config.validate()
    return DATASETS[name][0](config)


def _configured(name: str, options: dict[str, Any], seed: int, size: int) -> Any:
    """Return a data set's configuration. Raises `ValueError` naming the option that is wrong."""
    from reasoning_gym.factory import DATASETS

    kind = DATASETS[name][1]
    known = [field.name for field in dataclasses.fields(kind) if field.name not in OURS]
    for option in options:
        if option != "level" and option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(['level', *known])}")
    given = {**options}
    level = given.pop("level", None)
    base = kind(seed=seed, size=size) if level is None else _at_level(name, level, seed, size)
    if name == "composite":
        return dataclasses.replace(
            base, datasets=[_part(part, seed, size) for part in given.get("datasets", ())]
        )
    return dataclasses.replace(
        base, **{option: _typed(option, value, getattr(base, option)) for option, value in given.items()}
    )


def _at_level(name: str, level: Any, seed: int, size: int) -> Any:
    """Return the configuration at a level of the data set's curriculum, as its authors combine its attributes."""
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(name):
        raise ValueError(f"{name} has no curriculum, so no levels")
    curriculum = create_curriculum(name)
    highest = max(len(attribute.levels) for attribute in curriculum.attributes.values()) - 1
    if type(level) is not int or not 0 <= level <= highest:
        raise ValueError(f"level must be from 0 to {highest}")
    curriculum.set_global_level(level)
    return curriculum.generate_configuration({"seed": seed, "size": size})


def _part(part: Any, seed: int, size: int) -> Any:
    """Return one data set of a mixture: {"name": …, "weight": 1, "config": {…}}, with options of its own."""
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS

    if not isinstance(part, dict) or not set(part) <= {"name", "weight", "config"}:
        raise ValueError("datasets must be objects with 'name' and, if wanted, 'weight' and 'config'")
    if part.get("name") not in set(DATASETS) - {"composite"}:
        known = ", ".join(sorted(set(DATASETS) - {"composite"}))
        raise ValueError(f"datasets: there is no data set {part.get('name')!r}; there are {known}")
    config = _configured(part["name"], part.get("config", {}), seed, size)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    given = {name: value for name, value in values.items() if name not in OURS}
    return DatasetSpec(name=part["name"], weight=part.get("weight", 1), config=given)


def _typed(option: str, value: Any, default: Any) -> Any:
    """Return an option as the library takes it: of the default's type. Raises `ValueError`."""
    if isinstance(default, enum.Enum):
        return type(default)(value)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    fits: bool = (
        type(value) is type(default)
        or (isinstance(default, float) and type(value) is int)
        or (default is None and isinstance(value, str | int | list))
    )
    if not fits:
        raise ValueError(f"{option} must be of the kind of {default!r}")
    return value


def _plain(value: Any) -> Any:
    """Return a value of an item, as text if a sandbox cannot hand it back: no scorer looks at those."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(_plain, value))
    return value if value is None or isinstance(value, bool | int | float | str | bytes) else str(value)


# -- answers are read, not evaluated ----------------------------------------------------------------------------------


def _tame() -> None:
    """Have the nine scorers that evaluate an answer read a literal, or a calculation."""
    import sympy
    from reasoning_gym.algorithmic import binary_matrix, spiral_matrix, string_insertion
    from reasoning_gym.games import countdown, n_queens, puzzle24

    for module in (binary_matrix, spiral_matrix, string_insertion, n_queens):
        module.eval = ast.literal_eval
    parse = sympy.parse_expr

    def read(text: str, *arguments: Any, **named: Any) -> Any:
        check_calculation(text, {*vars(sympy), *vars(builtins)} - _named - FUNCTIONS)
        return parse(text, *arguments, **named)

    sympy.parse_expr = countdown.parse_expr = puzzle24.parse_expr = read
    sympy.simplify(sympy.diff(read("exp(x)*sin(x)"), "x"))  # imports what each grading would import anew


def check_calculation(text: str, forbidden: set[str]) -> None:
    """Raise `ValueError` unless a text is numbers, operators and names that are not forbidden."""
    if CALCULATION.sub("", text):
        raise ValueError("the answer holds what no calculation has")
    for word in WORD.findall(text):
        if word in forbidden or "__" in word or keyword.iskeyword(word):
            raise ValueError(f"no calculation has {word!r}")


if __name__ == "preload":
    load()
