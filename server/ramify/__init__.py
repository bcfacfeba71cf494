"""Ramify: a tree-search server for language models."""

__version__ = "0.1.0"
