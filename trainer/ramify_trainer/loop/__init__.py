"""The loop: search training problems, learn from the trees, serve what got better, again.

| module | what it does |
|---|---|
| `state` | the state of a run, on disk; one process a folder |
| `teacher` | another server that searches in place of the one trained, if there is one |
| `collection` | the collect phase: a round's problems, searched by the server |
| `puller` | the pull phase: the log's new records, under a lease |
| `round_trees` | a round's trees, frozen on disk and labelled |
| `replay` | right answers of the rounds before, to be imitated again |
| `training` | the train phase, by one process or several; which settings a round is trained by |
| `release` | the publish phase: a candidate as a release, with its canary |
| `rounds` | one round after another |
| `report` | the table and the curve |
| `demo` | a server and a trainer together |
"""
