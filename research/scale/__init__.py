"""A fleet past one machine, as a discrete-event model: which part becomes the limit, and when.

    python -m research.scale measure                    # what this machine can measure, into measured.json
    python -m research.scale check                      # the model's log and epoch beside the real ones
    python -m research.scale report --out runs/scale    # the sweep: tables and plots

| module | what it holds |
|---|---|
| `parameters` | every number that the model takes, with its unit and source |
| `stations` | places where work waits for its turn; PostgreSQL's two locks among them |
| `replicas` | one server: admission, its process, its way into the log, its place in the fleet |
| `front` | the front door: which replica gets a search |
| `simulation` | arrivals, failures, activations, and what came of them |
| `measure` | the measured parameters, by the real code on a PostgreSQL, an S3 server and a HAProxy of its own |
| `check` | real writers and real looks beside simulated ones |
| `sweep` | the runs that the report is made of |
| `report` | tables and plots |

What a replica does next in its fleet is not modelled: the simulation calls `ramify.fleet.decisions.turn`, as a server
does, on rows in memory. Everything else is a queue whose service time was measured on the real code, or is named as an
assumption and varied.

**simpy** (2026-11-29), not vectorised queueing formulas: a search holds its place in admission until its tree is
logged, so a slow log fills the replicas, whose refusals empty the log's queue; and an activation takes replicas out one
by one, as the real decisions say. Nothing of that is a product of independent queues. simpy runs 50,000 searches a
second of processor time, so a point of the sweep takes seconds.
"""
