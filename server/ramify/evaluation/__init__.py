"""Methods against one another at equal tokens and at equal seconds: run, read off, compare, report.

| module | what it is |
|---|---|
| `budgets` | generated tokens, or seconds on the clock |
| `metering` | engine-seconds: what a search cost the engines |
| `methods` | the configurations that are compared, from TOML, `--set` and `--sweep` |
| `rows` | results on disk as they come |
| `reading` | a tree's answers at each budget, judged by the task's verifier |
| `runner` | many problems at once, every method on each; on the clock in turns |
| `calibration` | the calibration of a scorer, fitted on graded answers |
| `backends` | engines in this process, or a running server |
| `summary` | rows to figures: accuracies and paired differences with their intervals |
| `report` | tables for the terminal, Markdown and JSON |
| `plot` | accuracy against tokens and seconds, drawn |
| `provenance` | the release, the machine and the versions that figures were measured with |

`ramify.statistics` has the bootstrap.
"""
