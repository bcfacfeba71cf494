"""The loop: search training problems, learn from the trees, serve what got better, again.

| module | what it does |
|---|---|
| `config` | everything a run can be told |
| `state` | where a run stands, on disk |
| `owner` | whose lease it is, and one process a folder |
| `watch` | what a run is doing, and since when |
| `worker` | the one thread that computes |
| `batch` | a round's trees, frozen on disk and labelled |
| `learn` | the train phase |
| `measure` | a policy on held-out problems, without search |
| `judge` | a value model on sampled answers |
| `gate` | the gate phase |
| `release` | a candidate as a release, with its canary |
| `rounds` | one round after another |
| `report` | the table and the curve |
| `demo` | a server and a trainer together |
"""
