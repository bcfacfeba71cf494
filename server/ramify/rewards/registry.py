"""Tasks by name: `task(name, problem)` binds a problem to its rules.

| name | problem | final answer | right when |
|---|---|---|---|
| `countdown` | `{"numbers": [3, 5, 7, 8], "target": 24}` | canonical expression | the calculation holds |
| `exact` | `{"answer": "Paris", "ignore_case": true}` | see `tasks.answer_line` | equal text, whole |
| `math` | `{"answer": "\\\\frac{1}{2}"}` | see `answer_text.final` | one value |
| `none` | `{}` | the stripped text | never graded |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramify.rewards import countdown, schemas
from ramify.rewards.errors import UnknownTask
from ramify.rewards.mathematics import MathTask, default_pool
from ramify.rewards.pool import Pool
from ramify.rewards.tasks import CountdownTask, ExactTask, FreeTask
from ramify.search.protocols import Task

NAMES = ("countdown", "exact", "math", "none")
"""Every task."""
VERIFIABLE = ("countdown", "exact", "math")
"""The tasks that can grade."""

_SCHEMAS = {
    "countdown": schemas.countdown_problem,
    "exact": schemas.exact_problem,
    "math": schemas.math_problem,
    "none": schemas.no_problem,
}


def check(name: str, problem: Mapping[str, object]) -> Any:
    """The problem as its task's frozen record (`None` for the task `none`).

    Raises `UnknownTask`, or `BadProblem` naming the field and its limit.
    """
    if name not in _SCHEMAS:
        raise UnknownTask("name", f"no task is named {str(name)[:50]!r}; there are {', '.join(NAMES)}")
    return _SCHEMAS[name](problem)


def stated(name: str, prompt: str) -> tuple[dict[str, Any], str] | None:
    """The problem that a bare prompt states, and the prompt as the task words it; `None` where it states none.

    Only Countdown's prompts say the whole problem. Raises nothing, also for unknown names.
    """
    problem = countdown.parse_prompt(prompt) if name == "countdown" else None
    return None if problem is None else ({**problem}, countdown.prompt(problem))


def task(name: str, problem: Mapping[str, object], pool: Pool | None = None) -> Task:
    """Bind a problem to its task's rules.

    `pool` is the pool of math-verify workers that `math` uses; `None` takes the process's shared one, which
    starts with the first call and is ended by `mathematics.close_default_pool`. Cheap: no process starts
    here. Raises `UnknownTask`, or `BadProblem` naming the field and its limit.
    """
    checked = check(name, problem)
    if name == "countdown":
        return CountdownTask(checked)
    if name == "exact":
        return ExactTask(checked)
    if name == "math":
        return MathTask(checked, pool or default_pool())
    return FreeTask()
