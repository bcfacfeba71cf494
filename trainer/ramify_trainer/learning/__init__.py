"""From searched trees to new weights.

| module | what it holds |
|---|---|
| `config` | the settings |
| `labelled`, `outcomes` | which answers are right, by whom; a tree with that knowledge |
| `returns` | values of a tree's nodes: V, and the λ-return G |
| `advantages`, `imitation` | what each objective says of each node |
| `targets` | a tree's nodes with weights and targets, by the configured objective |
| `eligible` | which trees may serve which objective |
| `packing`, `batches` | trees as packed sequences, prompt and shared prefixes once; several in a batch |
| `losses` | the objectives on token log-probabilities |
| `networks` | policy and value model of any Hugging Face directory: load, read, export, adapters |
| `trainee` | one network in training: optimizer, steps |
| `checkpoint` | everything that a resumed run needs, on disk |
| `metrics` | a round in figures |
| `learner` | one round, from labelled trees to weights |
| `sampling`, `judging` | answers and values of weights that are not served, for the gate |
"""
