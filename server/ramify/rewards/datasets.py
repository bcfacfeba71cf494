"""Data sets by name: `load(spec, count, seed)`.

| spec | what it is |
|---|---|
| `countdown:test`, `countdown:dev`, `countdown:train` | generated problems of 4, 5 and 6 numbers in turn |
| `countdown:test?numbers=5,6` | the same, of 5 and 6 numbers only |
| `path/to/rows.jsonl` | one's own: see `ramify.rewards.jsonl` |
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from ramify.rewards import countdown, jsonl
from ramify.rewards.countdown_data import COUNTS, Split, problems
from ramify.rewards.errors import BadDataset
from ramify.rewards.examples import Example, Message

__all__ = ["Example", "Message", "load"]

MAX_PER_SIZE = 5_000
"""Countdown problems of one number count: well below how many different ones a split has."""

_SPLITS: dict[str, Split] = {"train": "train", "dev": "dev", "test": "test"}


def load(spec: str, count: int | None = None, seed: int = 0) -> list[Example]:
    """The examples of a data set, the same for the same arguments.

    `count` is how many: for Countdown generated so many, of a file a sample without replacement in the file's
    order (with one seed a smaller sample is part of a larger one); `None` is all of a file. A file that has
    fewer gives all. Raises `BadDataset`.
    """
    if count is not None and count < 1:
        raise BadDataset(spec, None, None, f"{count} examples were asked for; ask for at least 1")
    if spec.startswith("countdown:"):
        return _countdown(spec, count, seed)
    path = Path(spec)
    if not path.is_file():
        known = ", ".join(f"countdown:{split}" for split in _SPLITS)
        raise BadDataset(spec, None, None, f"no such file, and no data set of that name (there are {known})")
    return jsonl.sample(path, count, seed)


def _countdown(spec: str, count: int | None, seed: int) -> list[Example]:
    split, _, query = spec.removeprefix("countdown:").partition("?")
    if split not in _SPLITS:
        raise BadDataset(spec, None, None, f"there is no split {split!r}, only {', '.join(_SPLITS)}")
    counts = _counts(spec, query)
    if count is None or count > MAX_PER_SIZE * len(counts):
        raise BadDataset(spec, None, None, f"say how many problems, at most {MAX_PER_SIZE * len(counts)}")
    return [
        Example(
            id=f"countdown:{' '.join(map(str, problem['numbers']))} to {problem['target']}",
            prompt=countdown.prompt(problem),
            messages=(),
            task="countdown",
            problem={"numbers": list(problem["numbers"]), "target": problem["target"]},
            group=f"{len(problem['numbers'])} numbers",
        )
        for problem in problems(_SPLITS[split], count, seed, counts)
    ]


def _counts(spec: str, query: str) -> tuple[int, ...]:
    """How many numbers the problems have: `numbers=5,6`."""
    if not query:
        return COUNTS
    allowed = {str(count): count for count in COUNTS}
    options = parse_qsl(query, keep_blank_values=True)
    values = options[0][1].split(",") if [key for key, _ in options] == ["numbers"] else []
    if not values or len(set(values)) < len(values) or not set(values) <= set(allowed):
        some = ",".join(allowed)
        raise BadDataset(
            spec, None, "numbers", f"write ?numbers= and some of {some}, such as ?numbers={some}"
        )
    return tuple(allowed[value] for value in values)
