"""Data sets by name: `load(spec, count, seed)`.

| spec | data set |
|---|---|
| `countdown:test`, `countdown:dev`, `countdown:train` | generated problems of 4, 5 and 6 numbers in turn |
| `countdown:test?numbers=5,6` | the same, of 5 and 6 numbers only |
| `reasoning-gym:gcd?split=train&level=2` | one of reasoning-gym's data sets |
| `TASK:SPLIT?option=value` | those of any other task that has `splits` |
| `path/to/rows.jsonl` | a file of your own: see `ramify.rewards.jsonl` |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qsl

from ramify.rewards import jsonl, registry
from ramify.rewards.errors import BadDataset, BadProblem
from ramify.rewards.verifier import Example

MAX_OFFERED = 10
"""Data sets of a task that an error lists."""


def load(spec: str, count: int | None = None, seed: int = 0) -> list[Example]:
    """Return the examples of a data set, the same for the same arguments.

    `count` is how many: the first so many of a generated data set, a sample without replacement of a file in the file's
    order (with one seed a smaller sample is part of a larger one); `None` is all there are. A data set that has fewer
    gives all. Raises `BadDataset`.
    """
    if count is not None and count < 1:
        raise BadDataset(spec, None, None, f"{count} examples were asked for; ask for at least 1")
    task, colon, variant = spec.partition(":")
    if colon and task in registry.names():
        return list(_of_task(spec, task, variant, count, seed))
    path = Path(spec)
    if not path.is_file():
        known = ", ".join(offer for name in registry.names() for offer in _offers(name))
        raise BadDataset(spec, None, None, f"no such file, and no data set of that name (there are {known})")
    return jsonl.sample(path, count, seed)


def _offers(task: str) -> Iterator[str]:
    """Yield the names of a task's data sets, or how many there are if they would fill a page."""
    splits = registry.verifier_of(task).splits
    if len(splits) > MAX_OFFERED:
        yield f"{task}:NAME, of {len(splits)} names"
    else:
        yield from (f"{task}:{split}" for split in splits)


def _of_task(spec: str, task: str, variant: str, count: int | None, seed: int) -> Iterator[Example]:
    """Yield the examples that a task makes itself, each checked and with what it left out filled in."""
    verifier = registry.verifier_of(task)
    split, _, query = variant.partition("?")
    if split not in verifier.splits:
        known = ", ".join(verifier.splits) or "none"
        raise BadDataset(spec, None, None, f"unknown split {split!r}; there are {known}")
    options = parse_qsl(query, keep_blank_values=True)
    if len(dict(options)) < len(options):
        raise BadDataset(spec, None, None, "gives an option twice")
    try:
        for example in islice(verifier.examples(split, seed, dict(options)), count):
            verifier.of(example.problem)
            yield replace(
                example,
                id=example.id or _id_of(task, example),
                task=task,
                group=example.group or task,
            )
    except BadProblem as error:
        raise BadDataset(spec, None, f"problem.{error.field}", error.message) from error
    except ValueError as error:
        raise BadDataset(spec, None, None, str(error)) from error


def _id_of(task: str, example: Example) -> str:
    """Name a problem by what it is: searches derive their seeds from it."""
    content = [example.prompt, [message.content for message in example.messages], dict(example.problem)]
    return f"{task}:{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]}"
