"""Objectives and searches against each other: the same base, the same generated tokens, the same optimizer steps.

| module | what it does |
|---|---|
| `config` | the arms, and the loop that each of them is |
| `searched` | accuracy with search, asked of the server |
| `record` | what an arm had come to after a round, kept on disk |
| `run` | one arm after another, each against a server of its own |
| `summary` | means over seeds, and the steps that an arm needs for another's accuracy |
| `paired` | where every run ended, and what parts any two of one seed |
| `report` | the table, the same as JSON, and the curves |
"""
