"""Ramify's own Python client: a search, the same while it runs, a verdict on it, and the log.

pip install .                                            # in a checkout
ramify serve &
python examples/python_client.py [URL of the server]      # a key, if it wants one, in RAMIFY_API_KEY
"""

from __future__ import annotations

import sys

from ramify_client import BadRequest, Client

with Client(sys.argv[1] if len(sys.argv) > 1 else None) as ramify:
    print("served:", ramify.version().model)
    found = ramify.search("3 5 7 8 to 24", search={"algorithm": "mcts", "budget": {"tokens": 1000}}, n=2)
    for answer in found.candidates:
        print(f"{answer.final}: value {answer.value:.2f}, {answer.visits} visits")
    print("tokens of the whole search:", found.usage.completion_tokens)

    print("as it runs:")
    with ramify.stream("3 5 7 8 to 24", search={"budget": {"tokens": 1000}}) as events:
        for event in events:
            print(event.kind, event.tokens or "", (event.answer and event.answer.final) or "")

    ramify.trees.feedback(found.tree.id, 1.0 if found.answer else 0.0, comment="checked by hand")
    tree = ramify.trees.get(found.tree.id)
    print("nodes:", len(tree.tree["nodes"]), "verdicts:", [verdict.outcome for verdict in tree.feedback])
    for record in ramify.trees.read(after=tree.seq - 1):
        print("in the log:", record.seq, record.kind, record.tree_id)

    try:
        ramify.search("3 5 7 8 to 24", search={"width": 0})
    except BadRequest as error:
        print("refused:", error.param, "-", error)
