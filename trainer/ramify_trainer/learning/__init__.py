"""From searched trees to new weights.

| module | what it holds |
|---|---|
| `config` | the settings |
| `labels` | outcomes of a tree's answers; which trees may serve which objective |
| `returns` | values of a tree's nodes: V, and the λ-return G |
| `advantages` | comparisons of a tree's nodes with what the policy reaches without them |
| `targets` | a tree's nodes with weights and targets, by the configured objective; right answers to be imitated |
| `packing` | trees as packed sequences, prompt and shared prefixes once |
| `batches` | the optimizer steps of a round; several sequences in a batch |
| `losses` | the objectives on token log-probabilities |
| `adapters` | the policy's LoRA adapters on disk |
| `networks` | policy and value of any Hugging Face directory: loaded, read, adapted |
| `lm_head` | log-probabilities of chosen tokens, without the logits of all others |
| `value_head` | a value head on the policy's trunk: its file |
| `trainee` | one network in training: optimizer, learning rates, steps |
| `prompts` | a refined tree as one tree for each of its prompts |
| `pieces` | a round's trees as sequences to train on |
| `packing_probe` | networks that cannot read packed trees, found out before a round |
| `export` | weights as a Hugging Face directory |
| `checkpoint` | everything that a resumed run needs, on disk |
| `metrics` | a round in figures |
| `learner` | one round, from labelled trees to weights |
| `memory` | what an optimizer step needs of memory, by arithmetic or measured |
"""
