"""The loop: search training problems, learn from the trees, serve what got better, again.

| module | what it does |
|---|---|
| `state` | the state of a run, on disk; one process a folder |
| `teacher` | another server that searches in place of the one trained, if there is one |
| `collection` | the collect phase: a round's problems, searched by the server |
| `puller` | the pull phase: the log's new records, under a lease |
| `round_trees` | a round's trees, frozen on disk and labelled |
| `replay` | right answers of the rounds before, to be imitated again |
| `training` | the train phase: what a round is trained on, and by which settings |
| `ranks` | one of several processes that train together |
| `on_ray` | such processes on a Ray cluster |
| `processes` | the train phase in one process or in several, begun again if one dies |
| `release` | the publish phase: a candidate as a release, with its canary and its search defaults |
| `rounds` | one round after another |
| `report` | the table and the curve |
| `demo` | a server and a trainer together |
"""
