"""A fleet: servers on one PostgreSQL log that serve one release, which is activated in all of them or in none.

| module | what it holds |
|---|---|
| `records` | the rows: epochs and replicas |
| `shares` | what each API key may hold at each replica |
| `decisions` | what is to be done next, as pure functions of the rows |
| `schema` | the tables |
| `store` | the rows in PostgreSQL |

An *epoch* is one activation of a release in the fleet. The committed epoch of the highest number is what is served::

    asked ─→ preparing ─────────→ committing ─────────→ committed
                 │  every member     │  every member has loaded it, and
                 │  has checked it   │  nobody can answer under another
                 ▼                   ▼
             going_back ───────→ gone_back      too many failures, or the deadline

A *replica* is one process from its start to its end. Every heartbeat it looks: in one transaction, which locks the
fleet's row, it writes its own state, moves the activation on as far as the rows allow, and reads its next step::

    starting ─→ behind ⇄ switching ─→ waiting ─→ ready ─→ preparing ─→ switching ─→ …
                                                   │
                          TRIES failures ─→ evicted ⇄ behind (an operator takes it back)

**Lease.** What a look found holds for `lease` seconds from when it began. Then the replica admits nothing, stops what
runs and leaves it unanswered. The database's clock noted the look later than it began, so the others, who wait
`MARGIN` leases, pass on only after it has stopped. This asks of the clocks that they run alike to a quarter, not that
they agree.

**Promise.** In `rolling` mode an answer is of the committed epoch, or of the one that is committing or going back; in
`barrier` mode of the committed one alone. To hold it, a row's `serving` never claims too little: it is written before
a replica opens and after it has closed; and a commit waits until every row that may be live says 0 or the new epoch.

**No coordinator** (2026-11-29). Whoever looks first after something has become possible decides it, since looks come
one after another. An elected coordinator would do the same with a lock more, and a wait when it dies.

**Fault of one or of all.** A replica that fails `TRIES` times, while another succeeded, is evicted if enough are left;
a release that two replicas could not load, or that none could prepare, goes back and evicts nobody.
"""

from ramify.fleet.decisions import status
from ramify.fleet.records import ActivationUnderWay, Epoch, FleetError, Mode, Replica, Step, View
from ramify.fleet.store import FleetStore

__all__ = [
    "ActivationUnderWay",
    "Epoch",
    "FleetError",
    "FleetStore",
    "Mode",
    "Replica",
    "Step",
    "View",
    "status",
]
