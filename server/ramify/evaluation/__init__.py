"""Methods against one another at equal generated tokens: run, read off, compare, report.

Read from the bottom up: `methods` (what is compared), `reading` (a tree's answers at each budget), `backends` (who
grows the trees), `rows` (results on disk as they come), `runner` (many problems at once), `statistics` (intervals and
paired differences), `summary` (rows to figures), `report` and `plot` (figures to tables and pictures).
"""
