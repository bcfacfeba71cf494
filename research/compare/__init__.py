"""Objectives and searches against each other: the same base, the same generated tokens, the same optimizer steps.

| module | what it does |
|---|---|
| `config` | the arms, and the loop that each of them is |
| `points` | what an arm had come to after a round, kept on disk; means over seeds |
| `costs` | tokens of the value model, and of training, counted from what a run leaves |
| `grading` | the verifier's verdict on an answer |
| `trl_grpo` | an arm that is no loop but TRL's GRPO |
| `scores` | scores by problem: measured outside a loop, and of a finished run, round by round |
| `intervals` | arms against the first one over all seeds |
| `passes` | pass@k before and after training |
| `run` | one arm after another, each against a server of its own |
| `tune` | every arm's rates by as many trials, on dev |
| `report` | the tables, the same as JSON, and the curves |
"""
