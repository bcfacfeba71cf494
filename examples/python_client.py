"""Ramify's own Python client: a search, the same while it runs, a verdict on it, and the log.

pip install .                                            # in a checkout
ramify serve &
python examples/python_client.py [URL of the server]      # a key, if it wants one, in RAMIFY_API_KEY
"""

from __future__ import annotations

import re
import sys

from ramify_client import BadRequest, Client

NUMBERS, TARGET = [3, 5, 7, 8], 24
PROMPT = "3 5 7 8 to 24"


def solved(text: str) -> bool:
    """Tell whether the steps are right and lead from the numbers, each used once, to the target."""
    left = list(NUMBERS)
    for line in text.strip().splitlines():
        step = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line.strip())
        if step is None:
            return False
        a, b, result = int(step[1]), int(step[3]), int(step[4])
        holds = {"+": a + b == result, "-": a - b == result, "*": a * b == result, "/": a == b * result != 0}
        if not holds[step[2]]:
            return False
        for used in (a, b):
            if used not in left:
                return False
            left.remove(used)
        left.append(result)
    return left == [TARGET]


def main(url: str | None) -> None:
    with Client(url) as ramify:
        print("served:", ramify.version().model)
        result = ramify.search(PROMPT, search={"algorithm": "mcts", "budget": {"tokens": 1000}}, n=2)
        for answer in result.candidates:
            print(f"{answer.final}: value {answer.value:.2f}, {answer.visits} visits")
        print("tokens of the whole search:", result.usage.completion_tokens)

        print("as it runs:")
        with ramify.stream(PROMPT, search={"budget": {"tokens": 1000}}) as events:
            for event in events:
                print(event.kind, event.tokens or "", (event.answer and event.answer.final) or "")

        if result.answer:  # a trainer may learn from this verdict: say only what was checked
            outcome = 1.0 if solved(result.answer.text) else 0.0
            ramify.trees.feedback(
                result.tree.id, outcome, source="verifier", comment="its arithmetic was recomputed"
            )
        tree = ramify.trees.get(result.tree.id)
        print("verdicts:", [verdict.outcome for verdict in tree.feedback])
        for record in ramify.trees.read(after=tree.seq - 1):
            print("in the log:", record.seq, record.kind, record.tree_id)

        try:
            ramify.search(PROMPT, search={"width": 0})
        except BadRequest as error:
            print("refused:", error.param, "-", error)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
