"""How many processes of a training the nodes of a Ray cluster hold."""

from __future__ import annotations

import pytest

from ramify_trainer.config import DistributedConfig
from ramify_trainer.loop.on_ray import room_of


@pytest.mark.parametrize(
    ("nodes", "cpus", "processes"),
    [
        ([], 1, 0),
        ([{"CPU": 2.0}], 1, 2),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 2, 2),  # six cores, and each process is whole on one node
        ([{"CPU": 3.0}, {"CPU": 3.0}], 4, 0),
        ([{"CPU": 1.0}], 0.1, 10),
        ([{"CPU": 8.0, "GPU": 4.0}], 1, 4),
        ([{"CPU": 8.0, "GPU": 4.0}], 4, 2),
        ([{"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0}], 1, 1),  # with a GPU anywhere, each process takes one
        ([{"memory": 1e9}], 1, 0),
    ],
)
def test_each_process_is_whole_on_one_node_with_a_gpu_if_there_is_any(
    nodes: list[dict[str, float]], cpus: float, processes: int
) -> None:
    assert room_of(nodes, DistributedConfig(launcher="ray", cpus=cpus)).processes == processes
