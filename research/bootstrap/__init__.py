"""The demo's first policy and value model, trained from nothing (TS-LLM's first stage).

| module | what it holds |
|---|---|
| `config` | the settings |
| `tokenizer` | the demo's vocabulary |
| `walks` | training text: random solved problems |
| `posterior` | the exact distribution over the steps of a walk that ends at the target |
| `soft_targets` | that distribution as the policy's training target |
| `tiny_llama` | the network |
| `policy` | supervised training of the policy |
| `sampling` | batched sampling from the network |
| `rollouts` | graded samples, and the targets that they give every step end |
| `collect` | samples for the value model |
| `soundness` | lines of answers, judged one by one |
| `verification` | walks with planted faults, to learn to check |
| `value` | training of the value model |
| `trunk` | one network from both: the policy with a value head on its trunk |
| `judge` | values, by a value model or by such a head |
| `checkpoints` | Hugging Face directories, written and read |
| `canary` | the probes of a release |
| `report` | figures on held-out problems |
| `run` | all of it in order |
"""
