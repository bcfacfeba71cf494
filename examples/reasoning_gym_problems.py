"""Problems of reasoning-gym as a file for `ramify eval --data` and the trainer.

python -m venv gym && gym/bin/pip install reasoning-gym==0.1.25
gym/bin/python examples/reasoning_gym_problems.py basic_arithmetic 200 --seed 1 > problems.jsonl

Generation only, in an environment of its own: reasoning-gym's scorers are not used, as some of them run the model's
answer as code. `countdown` becomes Ramify's own task; a data set whose scorer is the plain comparison of texts becomes
`exact`; any other is refused, since more answers than the given one may be right.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

LARGEST = 199
"""The largest number that Ramify's Countdown knows."""
ENDING = '\nEnd with a line "Answer:" and the answer.'


def rows(name: str, items: Iterable[Mapping[str, Any]], plain: bool) -> Iterator[dict[str, Any]]:
    """A row for each item that can be graded. plain: whether the answer is compared as text. Raises `ValueError`."""
    if name != "countdown" and not plain:
        raise ValueError(f"{name}: more than one answer may be right, so it cannot be graded by its text")
    for index, item in enumerate(items):
        task = countdown(item["metadata"]) if name == "countdown" else exact(item)
        if task is not None:
            yield {"id": f"{name}:{index}", "group": name, **task}


def countdown(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """Word the problem as Ramify does; `None` if a number is too large for it."""
    numbers, target = sorted(about["numbers"]), about["target"]
    if target > LARGEST or max(numbers) > LARGEST:
        return None
    prompt = f"{' '.join(map(str, numbers))} to {target}\n"
    return {"prompt": prompt, "task": "countdown", "problem": {"numbers": numbers, "target": target}}


def exact(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The question, with what ends an answer; `None` if the answer is not one line."""
    answer = str(item["answer"]).strip()
    if not answer or len(answer.splitlines()) > 1:
        return None
    message = {"role": "user", "content": item["question"].rstrip() + ENDING}
    return {"messages": [message], "task": "exact", "problem": {"answer": answer}}


def main() -> None:
    import reasoning_gym
    from reasoning_gym.dataset import ProceduralDataset

    parser = argparse.ArgumentParser(description="Problems of reasoning-gym as JSON lines.")
    parser.add_argument("name", help="data set, such as basic_arithmetic")
    parser.add_argument("count", type=int, help="how many problems")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    limits = {"min_target": 10, "max_target": LARGEST} if asked.name == "countdown" else {}
    data = reasoning_gym.create_dataset(asked.name, size=asked.count, seed=asked.seed, **limits)
    plain = type(data).score_answer is ProceduralDataset.score_answer
    try:
        for row in rows(asked.name, data, plain):
            print(json.dumps(row))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
