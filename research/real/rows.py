"""The rows of the recipe's files: problems as a data set of Ramify's, and chats with a worked answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

SYSTEM = "Solve step by step."
Row = Mapping[str, Any]


def asked(question: str, task: str, problem: Row, name: str, group: str) -> Row:
    """Return a problem for `ramify eval` and the trainer; `problem` is what the task's verifier needs to know."""
    return {"id": name, "messages": _turns(question), "task": task, "problem": problem, "group": group}


def worked(question: str, answer: str) -> Row:
    """Return a chat for fine-tuning; `answer` is all that the assistant says."""
    return {"messages": [*_turns(question), {"role": "assistant", "content": answer}]}


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    typer.echo(f"{path}: {len(rows)} rows")


def _turns(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
