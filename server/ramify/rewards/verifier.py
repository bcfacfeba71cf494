"""The base of every task: a problem, and the rules by which its answers are judged.

A task is a subclass of `Verifier`. Its fields are the problem that a caller sends, its methods judge the text that a
model wrote. The shipped tasks (`ramify.rewards.tasks`) and those of other packages are registered alike, by
`ramify.rewards.registry`; docs/library.md shows a whole package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ramify.rewards.errors import BadProblem
from ramify.search.protocols import GradingFailed
from ramify.search.records import Verdict

MAX_FIELD = 50
"""Characters of a field's name that an error repeats."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`; of a request also `developer` or `tool`."""
    content: str
    name: str | None = None
    """Name of the speaker, for templates that show it."""

    def fields(self) -> dict[str, str]:
        """Return the message as a request has it and a chat template reads it."""
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": self.content, **named}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of a data set: a problem to be asked and judged. Either `prompt` or `messages` is empty."""

    prompt: str = ""
    """Text that goes to the model as it is."""
    messages: tuple[Message, ...] = ()
    """A chat that goes through the model's template."""
    problem: Mapping[str, Any]
    """The task's problem, as a request carries it."""
    group: str = ""
    """Name by which tables are broken down, such as `5 numbers`; empty: the task's name, set by `datasets.load`."""
    id: str = ""
    """Unique in its data set; empty: made from prompt and problem by `datasets.load`."""
    task: str = ""
    """Name of the task that judges it, filled in by `datasets.load`."""


class Verifier(BaseModel):
    """One problem and the rules for its answers. Subclass it to make a task.

    The fields are the problem: their types and bounds are what a caller may send, strictly (`"3"` and `true` are no
    integers), and an unknown field is refused by name. Bound every size. `final`, `grade`, `match` and `feedback` are
    plain functions of this problem and a text. They run in a worker process that is killed at its deadline or memory
    limit, sees no secret of the server and can write no file. Never evaluate the model's text: parse it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    in_process: ClassVar[bool] = False
    """Judge on the server's own event loop instead: only for code whose time is bounded on any text."""
    max_text: ClassVar[int] = 8_192
    """Characters of a text that a worker gets to see, counted from its end."""
    grade_seconds: ClassVar[float | None] = None
    """Seconds that `grade` may take in a worker; None: the pool's own limit, 5 s."""
    final_seconds: ClassVar[float] = 2.0
    """Seconds that `final` and `match` may each take in a worker."""
    refine_template: ClassVar[str] = ""
    """Words in which a better answer is asked for under `action: refine`, with `{feedback}` in them; empty: the
    server's own."""
    splits: ClassVar[tuple[str, ...]] = ()
    """The task's own data sets: `ramify eval --data NAME:SPLIT` runs `examples(SPLIT, …)`."""

    def final(self, text: str) -> str | None:
        """Return the final answer of a complete text, so that equal answers are equal strings, or None if the text has
        no answer. Searches vote by it. By default the whole text, stripped."""
        return text.strip() or None

    def grade(self, text: str) -> Verdict:
        """Judge a complete text (the answer alone, without the prompt): an outcome in [0, 1], 1 is right, and a reason.

        Raise `GradingFailed`, or anything else, if it cannot be told; that counts for nothing, neither right nor
        wrong. A task that does not override this method cannot grade."""
        raise GradingFailed("no task that can grade was named: name one in `task`, or use `grader: model`")

    def match(self, text: str, others: Sequence[str]) -> int | None:
        """Return the index of the first of at most 32 `others` whose answer equals this text's, or None.

        Override it if `final` cannot spell equal answers alike; each text in `others` stands for answers that were
        found equal before. By default answers are equal if their `final` is."""
        final = self.final(text)
        return next((i for i, other in enumerate(others) if self.final(other) == final), None)

    def feedback(self, text: str, outcome: float | None) -> str:
        """Tell the model that wrote a complete text what is wrong with it, so that it can write a better one.

        outcome: the verdict on the text, in [0, 1], if the search has it from the verifier; None: it has not, and must
        not be told whether the text is right. Use only what the prompt states, beside that verdict: never a reference
        answer, never a hidden test. Raise `GradingFailed` if nothing can be told. A task that does not override this
        method gives no feedback, and its answers cannot be refined."""
        raise GradingFailed("this task gives no feedback")

    @property
    def feedback_needs_outcome(self) -> bool:
        """Tell whether `feedback` has nothing to say of this problem's answers without a verdict on them."""
        return False

    @classmethod
    def read_prompt(cls, prompt: str) -> tuple[Mapping[str, Any], str] | None:
        """Return the problem that a bare prompt states, and the prompt as the task words it; None if it states none.

        By default no prompt does. Called for every request that gives no problem: be quick, and raise nothing."""
        return None

    @classmethod
    def examples(cls, split: str, seed: int, options: Mapping[str, str]) -> Iterator[Example]:
        """Yield the problems of one of `splits`, the same for the same arguments; a data set may be endless.

        `options` are what follows a `?`, as in `sorted:test?size=5`. Raise `ValueError` for a bad one."""
        raise ValueError(f"this task has no data set {split!r}")

    @classmethod
    def warm_up(cls) -> None:
        """Import what is slow to import. Called in each worker process as it starts, before any deadline runs."""

    @classmethod
    def unusable(cls) -> str | None:
        """Say why nothing can be graded on this machine and what to install; None if all is well. Asked once at the
        start and for every search: remember the answer."""
        return None

    # -- our own side: nothing below is meant to be overridden --------------------------------------------------------

    @classmethod
    def can_grade(cls) -> bool:
        """Tell whether this task has a verifier; the task `none` has not."""
        return cls.grade is not Verifier.grade

    @classmethod
    def gives_feedback(cls) -> bool:
        """Tell whether this task says what is wrong with an answer."""
        return cls.feedback is not Verifier.feedback

    @classmethod
    def compares_pairs(cls) -> bool:
        """Tell whether equality is asked of `match` rather than seen from `final`."""
        return cls.match is not Verifier.match

    @classmethod
    def of(cls, problem: Mapping[str, object]) -> Self:
        """Bind a problem as a caller sent it. Raises `BadProblem` naming the first field that is wrong."""
        if not isinstance(problem, Mapping):
            raise BadProblem("problem", f"must be an object with {cls._fields()}")
        try:
            return cls.model_validate_json(json.dumps(dict(problem)))
        except ValidationError as invalid:
            raise cls._bad(invalid) from invalid
        except (TypeError, ValueError, RecursionError) as error:
            raise BadProblem("problem", f"is not JSON: {error}") from error

    @classmethod
    def _bad(cls, invalid: ValidationError) -> BadProblem:
        errors = invalid.errors(include_url=False, include_input=False)
        error = min(
            errors, key=lambda one: one["type"] != "extra_forbidden"
        )  # a misspelt field is missing, too
        field = ".".join(str(part)[:MAX_FIELD] for part in error["loc"]) or "problem"
        if error["type"] == "missing":
            return BadProblem(field, "is missing")
        if error["type"] == "extra_forbidden":
            return BadProblem(field, f"is unknown; this task's problem has {cls._fields()}")
        if error["type"] == "value_error":
            return BadProblem(field, str(error["ctx"]["error"]))
        _, should, rest = error["msg"].partition(" should ")
        return BadProblem(field, f"must {rest.partition(' after validation')[0]}" if should else error["msg"])

    @classmethod
    def _fields(cls) -> str:
        names = [f"'{field.alias or name}'" for name, field in cls.model_fields.items()]
        return ", ".join(names) or "no fields"

    @classmethod
    def functions(cls) -> Mapping[str, Callable[..., Any]]:
        """Return what a worker process of this task runs, by name; JSON goes in and comes out."""
        cls.warm_up()
        bound = lru_cache(maxsize=256)(cls.model_validate_json)

        def final(problem: str, text: str) -> str | None:
            return checked_final(bound(problem).final(text))

        def grade(problem: str, text: str) -> dict[str, Any]:
            verdict = checked_verdict(bound(problem).grade(text))
            return {"outcome": verdict.outcome, "reason": verdict.reason}

        def match(problem: str, text: str, others: Sequence[str]) -> int | None:
            return bound(problem).match(text, others)

        def feedback(problem: str, text: str, outcome: float | None) -> str:
            return checked_feedback(bound(problem).feedback(text, outcome))

        return {"final": final, "grade": grade, "match": match, "feedback": feedback}


def json_size(value: Any, place: str) -> int:
    """Return the characters of a value as JSON. Raises `ValueError` naming its place if a number in it is not finite,
    which no field of the type `JsonValue` refuses."""
    try:
        return len(json.dumps(value, allow_nan=False))
    except ValueError:
        raise ValueError(f"{place} holds a number that is not finite, which JSON does not have") from None


def checked_final(final: object) -> str | None:
    """Return what `final` returned if it may; raises `TypeError`."""
    if final is not None and not isinstance(final, str):
        raise TypeError(f"final returned {type(final).__name__}, not text or None")
    return final


def checked_feedback(feedback: object) -> str:
    """Return what `feedback` returned if it may; raises `TypeError`."""
    if not isinstance(feedback, str):
        raise TypeError(f"feedback returned {type(feedback).__name__}, not text")
    return feedback


def checked_verdict(verdict: object) -> Verdict:
    """Return what `grade` returned if it may; raises `TypeError` and `ValueError`."""
    if not isinstance(verdict, Verdict):
        raise TypeError(f"grade returned {type(verdict).__name__}, not a Verdict")
    outcome = float(verdict.outcome)
    if not (math.isfinite(outcome) and 0 <= outcome <= 1):
        raise ValueError(f"grade returned the outcome {outcome}; it must be from 0 to 1")
    return Verdict(outcome, str(verdict.reason))
