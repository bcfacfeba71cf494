"""Objects of other packages: announced by an entry point of an installed package, or named in settings.

Three things can be added without touching a file of ours: tasks (`ramify.tasks`), algorithms (`ramify.algorithms`) and
scorers (`ramify.scorers`); these are the groups of the entry points. Settings name an object by its path,
`package.module:Name`. Loading one runs its module with the server's rights, so a path never comes from a request:
requests know names, and only names that were registered at start.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from importlib import metadata
from operator import attrgetter
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""Names under which tasks, algorithms and scorers are asked for."""
PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*")
"""Paths of objects: `package.module:Name`."""


class BadExtension(ValueError):
    """An extension cannot be used: it cannot be imported, has the wrong shape, or its name is taken."""


def announced(group: str) -> Iterator[tuple[str, str]]:
    """Yield (name, path) of every entry point of a group, by name; imports nothing."""
    for point in sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value)):
        yield point.name, point.value


def load(path: str) -> Any:
    """Import the object that `package.module:Name` names. Raises `BadExtension`."""
    if not PATH.fullmatch(path):
        raise BadExtension(f"{path[:100]!r} is no path of an object, such as 'package.module:Name'")
    module, _, name = path.partition(":")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a module may raise anything while it is imported
        raise BadExtension(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return attrgetter(name)(imported)
    except AttributeError as error:
        raise BadExtension(f"{path} cannot be imported: {module} has no {name!r}") from error


def check_name(name: str) -> None:
    """Raise `BadExtension` unless a task, an algorithm or a scorer may have this name."""
    if not NAME.fullmatch(name):
        raise BadExtension(
            f"the name {name[:50]!r} must be 1 to 32 lower-case letters, digits, _ and -, a letter first"
        )
