"""A task, an algorithm and a scorer for Ramify: docs/extending.md shows them."""
