"""A second task with a model of its own: a tour of a grid, written step by step.

`task` reads and judges tours, `grids` draws grids and solves them, `make` trains a small policy with a value head on
its trunk and publishes it as a release, `replay` tells what giving walks up saves and costs. research/README.md says
how to make and search it.
"""
