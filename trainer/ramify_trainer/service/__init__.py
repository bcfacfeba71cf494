"""`ramify-trainer run`: the loop as a service.

| module | what it does |
|---|---|
| `run` | rounds until it is told to stop, whatever the server does meanwhile |
| `health` | whether it is ready, and why not |
| `metrics` | its figures for Prometheus |
| `http` | /livez, /readyz, /metrics |
| `away` | which errors mean that the server will be back |
"""
