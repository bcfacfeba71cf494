"""Methods against one another at equal generated tokens: run, read off, compare, report.

| module | what it is |
|---|---|
| `methods` | the configurations that are compared, from TOML, `--set` and `--sweep` |
| `rows` | results on disk as they come |
| `reading` | a tree's answers at each budget, judged by the task's verifier |
| `runner` | many problems at once, every method on each |
| `backends` | engines in this process, or a running server |
| `summary` | rows to figures: accuracies and paired differences with their intervals |
| `report` | tables for the terminal, Markdown and JSON |
| `plot` | accuracy against tokens, drawn |
| `provenance` | the release, the machine and the versions that figures were measured with |

`ramify.statistics` has the bootstrap.
"""
