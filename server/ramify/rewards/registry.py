"""Tasks by name: `task(name, problem)` binds a problem to its rules.

| name | problem | final answer | right when |
|---|---|---|---|
| `code` | tests, a function, limits: see `code.Code` | behaviour on the public tests | every hidden test passes |
| `countdown` | `{"numbers": [3, 5, 7, 8], "target": 24}` | canonical expression | the calculation holds |
| `exact` | `{"answer": "Paris", "ignore_case": true}` | see `tasks.answer_line` | equal text, whole |
| `math` | `{"answer": "\\\\frac{1}{2}"}` | see `answer_text.final` | one value |
| `none` | `{}` | the stripped text | never graded |
| `reasoning-gym` | see `gym.ReasoningGym` | the last `<answer>`, else the text | its scorer's full score |

Those of other packages stand beside them under the names of their entry points in the group `ramify.tasks`, or under
those that settings gave to `register`. All of them, ours too, come in by the same door.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ramify.extensions import BadExtension, announced, check_name, load
from ramify.rewards import grading
from ramify.rewards.errors import BadTask
from ramify.rewards.grading import BoundTask
from ramify.rewards.pool import Pool
from ramify.rewards.verifier import Verifier

SHIPPED = {
    "code": "ramify.rewards.code:Code",
    "countdown": "ramify.rewards.tasks:Countdown",
    "exact": "ramify.rewards.tasks:Exact",
    "math": "ramify.rewards.tasks:Math",
    "none": "ramify.rewards.tasks:Free",
    "reasoning-gym": "ramify.rewards.gym:ReasoningGym",
}
GROUP = "ramify.tasks"


def names() -> tuple[str, ...]:
    """Return the name of every task."""
    return tuple(_verifiers())


def gradable() -> tuple[str, ...]:
    """Return the names of the tasks that can grade."""
    return tuple(name for name, verifier in _verifiers().items() if verifier.can_grade())


def with_feedback() -> tuple[str, ...]:
    """Return the names of the tasks that say what is wrong with an answer."""
    return tuple(name for name, verifier in _verifiers().items() if verifier.gives_feedback())


def verifier_of(name: str) -> type[Verifier]:
    """Return a task's class. Raises `BadTask`, also for the path of one: only names are known here."""
    if name not in _verifiers():
        raise BadTask("name", f"unknown task {str(name)[:50]!r}; there are {', '.join(names())}")
    return _verifiers()[name]


def check(name: str, problem: Mapping[str, object]) -> Verifier:
    """Bind a problem to its task's class. Raises `BadTask`, or `BadProblem` naming the field and its limit."""
    return verifier_of(name).of(problem)


def stated(name: str, prompt: str) -> tuple[dict[str, Any], str] | None:
    """Return the problem that a bare prompt states, and the prompt as the task words it; `None` if it states none.

    Raises nothing, also for unknown names.
    """
    verifier = _verifiers().get(name)
    read = verifier.read_prompt(prompt) if verifier is not None else None
    return None if read is None else ({**read[0]}, read[1])


def task(name: str, problem: Mapping[str, object], pool: Pool | None = None) -> BoundTask:
    """Bind a problem to its task's rules.

    `pool` is the pool of workers that a task which is not judged in this process uses; `None` takes the process's
    shared one, which starts with the first call and is ended by `grading.close_pools`. Cheap: no process starts here.
    Raises `BadTask`, or `BadProblem` naming the field and its limit.
    """
    verifier = check(name, problem)
    if why := verifier.unusable():
        raise BadTask("name", why)
    return grading.bound(verifier, pool)


def unusable() -> dict[str, str]:
    """Return the tasks that cannot grade on this machine, and why. The first call tries; it takes a moment."""
    reasons = {name: verifier.unusable() for name, verifier in _verifiers().items()}
    return {name: why for name, why in reasons.items() if why}


# -- registration -----------------------------------------------------------------------------------------------------


def register(name: str, path: str) -> None:
    """Add the verifier at `path` (`package.module:Name`) as the task `name`: for trusted settings, never for requests.

    Raises `BadExtension` if it cannot be imported, is no `Verifier`, or if the name is another's.
    """
    _add(_verifiers(), name, path)


def register_default(task: str) -> str:
    """Return the name of a task that settings name, registering it first if they give the path of its verifier.

    Such a task is called by its class: `package.module:SortedList` is `sorted_list`. Raises `BadExtension`.
    """
    if ":" not in task:
        return task
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", task.rpartition(":")[2].rpartition(".")[2]).lower()
    register(name, task)
    return name


@cache
def _verifiers() -> dict[str, type[Verifier]]:
    """Return every task's class by name. Raises `BadExtension` if an entry point's cannot be used."""
    verifiers: dict[str, type[Verifier]] = {}
    for name, path in (*SHIPPED.items(), *announced(GROUP)):
        _add(verifiers, name, path)
    return verifiers


def _add(verifiers: dict[str, type[Verifier]], name: str, path: str) -> None:
    try:
        check_name(name)
        verifier = load(path)
        _check_shape(verifier, path)
    except BadExtension as error:
        raise BadExtension(f"task {name[:50]!r}: {error}") from error
    if verifiers.setdefault(name, verifier) is not verifier:
        other = grading.functions_path(verifiers[name]).removesuffix(".functions")
        raise BadExtension(f"task {name!r}: {path} cannot have this name, which is taken by {other}")


def _check_shape(verifier: object, path: str) -> None:
    if not (isinstance(verifier, type) and issubclass(verifier, Verifier)):
        raise BadExtension(f"{path} is not a subclass of ramify.rewards.Verifier")
    for method in ("final", "grade", "match", "feedback"):
        if inspect.iscoroutinefunction(getattr(verifier, method)):
            raise BadExtension(f"{path}: {method} must be a plain function: it runs in a worker process")
    if verifier.splits and verifier.examples.__func__ is Verifier.examples.__func__:  # type: ignore[attr-defined]
        raise BadExtension(f"{path} has splits, but no examples()")
    if verifier.refine_template and "{feedback}" not in verifier.refine_template:
        raise BadExtension(f"{path}: refine_template lacks {{feedback}}")
    here = grading.functions_path(verifier).removesuffix(".functions")
    if "<locals>" in here or load(here) is not verifier:
        raise BadExtension(f"{path}: a worker process cannot import it as {here}")
