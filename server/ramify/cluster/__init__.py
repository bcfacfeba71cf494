"""A fleet that Ray Serve places, starts, scales and replaces, with its front door: what `ramify fleet up` starts.

| module | what it holds |
|---|---|
| `file` | the fleet file, and what it says of each replica's settings |
| `nodes` | the nodes, and why a fleet does not start on them |
| `child` | a child process that ends with its actor |
| `figures` | the metrics of all replicas as one page, and how many replicas there are to be |
| `server` | one replica: `ramify serve`, ready before it counts as started, drained before it ends |
| `door` | HAProxy's configuration, and the commands that tell it where the replicas are |
| `front` | the front door while it runs |
| `actors` | the classes that Ray Serve runs |
| `deployment` | the fleet on Serve: up, down, what is said of it |

Three parties, each with its own part::

    Ray Serve    which processes run where: starts, counts, replaces, scales, and drains first
    ramify.fleet which release each serves, and who may answer: rows in PostgreSQL
    HAProxy      which request goes where: owner, session, prompt, least busy

They meet in two places only. Serve takes a replica to be started once `/readyz` of its server is 200. The door reads
the fleet's rows to find the replicas, whoever started them. Only `actors` and `deployment` import Ray.
"""
