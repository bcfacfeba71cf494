"""The loop: search training problems, learn from the trees, serve what got better, again.

| module | what it does |
|---|---|
| `config` | everything a run can be told |
| `state` | where a run stands, on disk |
| `batch` | a round's trees, frozen on disk and labelled |
| `measure` | a policy on held-out problems, without search |
| `release` | a candidate as a release, with its canary |
| `rounds` | one round after another |
| `report` | the table and the curve |
| `demo` | a server and a trainer together |
"""
