"""Objectives and searches against each other: the same base, the same generated tokens, the same optimizer steps.

| module | what it does |
|---|---|
| `config` | the arms, and the loop that each of them is |
| `points` | what an arm had come to after a round, kept on disk; means over seeds |
| `run` | one arm after another, each against a server of its own |
| `report` | the tables, the same as JSON, and the curves |
"""
