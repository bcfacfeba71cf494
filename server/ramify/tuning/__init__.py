"""Search defaults found by trial: `ramify tune`.

| module | what it is |
|---|---|
| `space` | the parameters that are tuned, and the ranges in which |
| `study` | trials of one arm under one budget: paired, pruned, repeatable, kept on disk |
| `found` | what the studies found, as search defaults, as methods and as a new release |
| `plot` | what mattered, drawn |
| `plan` | one run: every study, then their best on held-out problems |

An *arm* is a set of algorithms that is tuned as one: the tree searches, and each flat baseline by itself. All arms get
the same number of trials on the same problems, and are measured side by side on held-out ones by `ramify.evaluation`.

`optuna` is imported nowhere else.
"""
