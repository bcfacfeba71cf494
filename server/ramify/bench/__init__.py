"""`ramify bench`: searches timed against the engines' own limit, and the cost of the search itself.

| module | what it is |
|---|---|
| `recording` | the engine calls of searches, and the same work with nothing to wait for |
| `throughput` | runs of searches, each compared with its replay |
| `scaling` | the search alone, on engines that take no time |
| `report` | the figures as tables, JSON and a picture |
"""
