"""A task, an algorithm and a scorer for Ramify: docs/library.md shows them."""
