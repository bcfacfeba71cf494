"""The gate: whether a candidate is served.

| module | what it does |
|---|---|
| `unserved` | weights that are not served: the answers that are asked of them, their device and precision |
| `sampling` | answers by transformers, in batches |
| `spare_engine` | answers by vLLM, in a process of its own |
| `policy_scores` | a policy on held-out problems, without search |
| `value_scores` | a value model on sampled answers, and two compared |
| `decision` | the harm test: candidate against incumbent and best |
| `candidate` | the gate phase: measure and decide |
| `power` | how often a gate of some size decides rightly, simulated |
"""
