"""What the server does, without any web framework: admit, search, log, answer.

| module | what it holds |
|---|---|
| `errors` | every refusal and failure that a caller can meet |
| `ports` | what is needed of the engines, the log and the tasks |
| `served` | what is served, by the settings: the model's name and defaults, what its engines start with |
| `ask` | a search as it was asked for |
| `branching` | an ask to search on from a node of a logged tree |
| `prepare` | an ask made into a tree and its task, with the model's defaults |
| `admission` | how much runs at once; how long to wait before trying again |
| `searches` | searches from admission to the log: start, stop, drain |
| `spool` | finished searches on their way into the log; whether it takes them |
| `growing` | a running tree, told in pieces |
| `plain` | completions without a search |
| `answers` | what a search comes to: its state, and whether it counts as an answer |
| `releases` | which release is served: activation, rollback, history |
| `canary` | whether the weights that answer are those that were published |
| `idempotency` | one search for one Idempotency-Key |
| `retention` | how long trees are kept; how large the log is |
| `readiness` | whether the engines make progress |
| `metrics` | figures for Prometheus |
| `keys` | API keys and their scopes |
| `ids` | UUIDv7 |
"""
