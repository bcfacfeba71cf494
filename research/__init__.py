"""Experiments of a checkout, not part of what is installed; they may import everything, and nothing imports them.

| package | what it does |
|---|---|
| `bootstrap` | makes the demo's policy and value model from nothing (`make demo-model`, research/README.md) |
| `compare` | learns in several ways from one base, at equal cost (`make compare`, docs/evidence.md) |
"""
