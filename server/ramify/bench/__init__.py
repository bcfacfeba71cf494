"""How near the engines' own limit searching comes, and what the search itself costs.

`record` (every engine request of many searches), `replay` (the same work with nothing to wait for), `scaling` (the
search alone, on an engine that takes no time), `report` and `plot`.
"""
