"""The tasks, algorithms and scorer of other packages, registered as a program starts: see docs/extending.md."""

from __future__ import annotations

import inspect

from ramify.engines import ScorerFactory
from ramify.extensions import BadExtension, announced, load
from ramify.rewards import registry
from ramify.search import algorithms
from ramify.settings import Settings


def install(settings: Settings) -> Settings:
    """Register the tasks and algorithms that installed packages and the settings name.

    Returns the settings with a `task` that is the path of a verifier replaced by the name under which it is registered.
    Call it once, before anything is served. Raises `BadExtension`.
    """
    for name, path in settings.extensions.tasks.items():
        registry.register(name, path)
    registry.names()  # imports those of entry points, so that a broken one ends the start and no request
    try:
        algorithms.install(settings.extensions.algorithms)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadExtension(f"algorithms: {error}") from error
    if settings.task is None:
        return settings
    return settings.model_copy(update={"task": registry.register_default(settings.task)})


def scorer_factory(settings: Settings) -> ScorerFactory | None:
    """Return what makes the scorer that the settings name, or `None` if they name none. Raises `BadExtension`."""
    named = settings.extensions.scorer
    if named is None:
        return None
    known = dict(announced("ramify.scorers"))
    path = named if ":" in named else known.get(named)
    if path is None:
        raise BadExtension(
            f"scorer {named!r}: no installed package has it; there are {', '.join(known) or 'none'}"
        )
    factory: ScorerFactory = load(path)
    if not callable(factory):
        raise BadExtension(f"scorer {named!r}: {path} is not a class or a function that makes a scorer")
    if isinstance(factory, type) and not inspect.iscoroutinefunction(getattr(factory, "score", None)):
        raise BadExtension(f"scorer {named!r}: {path} has no method `async def score(self, sequences)`")
    return factory
