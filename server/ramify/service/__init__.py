"""The server without its web framework: it admits searches, runs them, logs them and answers.

| module | what it holds |
|---|---|
| `errors` | every refusal and failure that a caller can meet |
| `ports` | what is needed of the engines and the tokenizer |
| `keys` | API keys and their scopes |
| `metrics` | figures for Prometheus |
| `serving` | the model, the engines and the extensions that the settings name |
| `standing` | whether this server may take requests, and answer them |
| `admission` | how much runs at once, who is next, and how long to wait before trying again |
| `search_view` | how a search looks to its caller: ids, failure, changed nodes |
| `search_spec` | a search as it was asked for |
| `branching` | searching on from a node of a logged tree: prompt, task, what is answered already |
| `refinement` | feedback on an answer, and the prompt that asks for a better one |
| `policies` | the prompt of each policy that a search names |
| `search_preparation` | a search's specification made into a tree and its task, with the model's defaults |
| `idempotency` | one search for one Idempotency-Key |
| `grading` | the verifier's verdict on the answer of an ended search |
| `spool` | finished searches on their way into the log; whether it takes them |
| `checkpoints` | running searches committed now and then; what dead servers leave of theirs |
| `continuing` | a logged search that is taken on: whether it can be, and its new limits |
| `searches` | searches from admission to the log: start, stop, drain |
| `batches` | searches that share a budget: admitted as one |
| `completion_spec` | a completion as it was asked for, made into a request to the engine |
| `completions` | completions without a search |
| `judging` | the value model's judgement of partial answers |
| `catalogue` | the releases that there are, and which of them led to the one that is served |
| `canary` | the check that the weights that answer are those that were published |
| `releases` | which release is served: activation, rollback, history |
| `owners` | whose search an id names, in a fleet |
| `fleet` | this replica in its fleet: it looks, takes its steps, answers while its lease lasts |
| `readiness` | whether the engines make progress, asked all the while |
| `retention` | how long trees are kept; how large the log is |
"""
