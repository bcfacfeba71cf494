"""Train what a tree search found back into the weights.

| module | what it does |
|---|---|
| `cli` | the command `ramify-trainer` |
| `config` | the settings of a run, from one TOML file |
| `learning` | one round of training: labels, targets, losses, packed trees, the learner |
| `gate` | the decision whether a candidate is served |
| `loop` | rounds: collect, pull, train, gate, publish, activate, advance |
| `service` | `ramify-trainer run`: the loop as a service |
| `probes` | the service's /livez, /readyz and /metrics |
| `progress` | the progress of a run |
| `compute_thread` | the one thread that computes |
| `errors` | the errors of a trainer, and which errors pass by themselves |
"""
