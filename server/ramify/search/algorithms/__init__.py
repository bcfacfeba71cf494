"""The algorithms, by name. All of them grow the same `Tree` under the same `Budget`."""

from __future__ import annotations

from ramify.search.algorithms.base import Algorithm
from ramify.search.algorithms.beam import Beam
from ramify.search.algorithms.dfs import Dfs
from ramify.search.algorithms.dvts import Dvts
from ramify.search.algorithms.flat import Flat
from ramify.search.algorithms.gumbel import Gumbel
from ramify.search.algorithms.mcts import Mcts
from ramify.search.algorithms.particle import Particle
from ramify.search.algorithms.rap import Rap
from ramify.search.records import Algorithm as Name

ALGORITHMS: dict[Name, type[Algorithm]] = {
    "mcts": Mcts,
    "gumbel": Gumbel,
    "rap": Rap,
    "beam": Beam,
    "dvts": Dvts,
    "dfs": Dfs,
    "particle": Particle,
    "best_of_n": Flat,
    "self_consistency": Flat,
}
