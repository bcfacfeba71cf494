import pytest

from ramify.bench.scaling import SEARCHES, growth

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("search", SEARCHES)
async def test_trees_grow_to_the_sizes_asked_and_cost_about_the_same_a_simulation(search):
    """A quadratic search would cost eight times as much a simulation at eight times the nodes."""
    found = await growth(search, sizes=(100, 800), repeats=3)
    small, large = found.sizes
    assert small.nodes >= 100
    assert large.nodes >= 800
    assert large.per_simulation < 4 * small.per_simulation
