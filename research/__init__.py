"""Experiments of a checkout, not part of what is installed; they may import everything, and nothing imports them.

| package | what it does |
|---|---|
| `bootstrap` | makes the demo's policy and value model from nothing (`make demo-model`, research/README.md) |
| `compare` | learns in several ways from one base, at equal tokens (`make compare`, docs/evidence.md) |
| `evidence` | makes every table of docs/evidence.md again (`make evidence`) |
| `shared_trunk` | trains a policy with and without a value head's gradient on its trunk, docs/training.md |
| `duels` | searches of other libraries against Ramify's, on the same engine |
| `scale` | models a fleet of many replicas by discrete events, docs/fleet.md |
| `sharing` | compares one budget shared between prompts with an even split of it |
| `tour` | a second task with a model of its own: tours of a grid (research/README.md) |
| `programs` | a third task: small programs found from what they do, judged by hidden tests |
| `real` | a chat model from fine-tuning to the loop: word problems, a value head, a release |
"""
