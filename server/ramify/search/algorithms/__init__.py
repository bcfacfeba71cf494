"""The algorithms, by name. All of them grow the same `Tree` under the same `Budget`.

An algorithm of one's own is a subclass of `base.Algorithm` and a line in `ALGORITHMS`; outside this package, an entry
point of the group `ramify.algorithms` or a dotted path that `install` is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name

from ramify.search.algorithms.base import Algorithm
from ramify.search.algorithms.flat import BestOfN, SelfConsistency
from ramify.search.algorithms.gumbel import Gumbel
from ramify.search.algorithms.mcts import Mcts
from ramify.search.algorithms.particle import Particle
from ramify.search.algorithms.pruning import Beam, Dfs, Dvts
from ramify.search.algorithms.rap import Rap

ALGORITHMS: dict[str, type[Algorithm]] = {
    "mcts": Mcts,
    "gumbel": Gumbel,
    "rap": Rap,
    "beam": Beam,
    "dvts": Dvts,
    "dfs": Dfs,
    "particle": Particle,
    "best_of_n": BestOfN,
    "self_consistency": SelfConsistency,
}

GROUP = "ramify.algorithms"
"""The entry points by which an installed package brings algorithms."""


def install(paths: Mapping[str, str]) -> None:
    """Add the algorithms of installed packages, and those of `paths`: name to `package.module:Class`.

    This imports and runs their code: `paths` come from the operator's settings, never from a request. Call it once,
    before anything is served. Raises `ValueError` for a name that is taken and for what is no algorithm."""
    given = {point.name: point.value for point in entry_points(group=GROUP)} | dict(paths)
    for name, path in given.items():
        algorithm = resolve_name(path)
        if not (isinstance(algorithm, type) and issubclass(algorithm, Algorithm)):
            raise ValueError(f"{path} is no subclass of {Algorithm.__module__}.Algorithm")
        if ALGORITHMS.setdefault(name, algorithm) is not algorithm:
            raise ValueError(f"there is an algorithm {name!r} already: {ALGORITHMS[name].__module__}")
