"""Ramify against other libraries of tree search, on one server: same policy, same value model, same problems.

Every arm asks a running `ramify serve`. Ramify's own arms send one request a problem; the libraries draw each step from
POST /v1/completions and have it judged by POST /v1/value, as their users would. Answers are graded by our verifier.

| module | what it holds |
|---|---|
| `engine` | a server's policy and value model, as the libraries ask them, with the tokens counted |
| `arms` | an arm, its budget, and Ramify's own |
| `treequest` | AB-MCTS-A of TreeQuest 0.3.3 |
| `its_hub` | beam search and particle filtering of its_hub 1.2 |
| `refinement` | whole answers that are bettered with feedback: Ramify and AB-MCTS-A, a script of its own |
| `run` | every arm on every problem, in turns |
| `report` | the table, with paired intervals |
"""
