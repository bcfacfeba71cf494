"""Ask for better answers, under `action: refine`: make the prompts that put an answer and the feedback on it to the
policy.

To a conversation the answer is added as the assistant's turn and the request as a further turn of the user's, and the
model's chat template writes all of it. A prompt that is no conversation needs a template that names its parts. Feedback
comes from the task, which tells what the model may know (`rewards.verifier.Verifier.feedback`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ramify.rewards import registry
from ramify.rewards.verifier import Verifier
from ramify.search.protocols import GradingFailed
from ramify.search.records import Revision, SearchParams
from ramify.service.errors import BadRequest
from ramify.service.ports import Tokenizer
from ramify.service.search_spec import SearchSpec

TEMPLATE = (
    "Here is feedback on your answer:\n\n{feedback}\n\n"
    "Write a better answer to the problem. Give the whole answer again, in the same form, not only what changes."
)
"""The turn that asks for a better answer, if neither request nor release nor task has words for it."""
LONGEST_FEEDBACK = 4_000
"""Characters of feedback that are put to the policy."""
SHARES = (1.0, 0.5, 0.25, 0.125)
"""Shares of an answer that are shown, the first that leaves room for another. One that can show less is no answer."""
GAP = "\n[…]\n"
"""Stands for the middle of an answer that is shown in part."""

Ask = Callable[[str, str], list[int]]
"""Give the prompt's token ids for an answer and its feedback. Raises `ValueError` if the chat template refuses."""


@dataclass(frozen=True, slots=True)
class TaskReviser:
    """The reviser of one search (`search.protocols.Reviser`): feedback is its task's."""

    feedback: Callable[[str, float | None], Awaitable[str]]
    ask: Ask
    room: int
    """Tokens that a prompt may have."""

    async def revise(self, text: str, outcome: float | None) -> Revision:
        """Return the prompt for an answer, with as much of it as there is room for. Raises `GradingFailed` if there is
        no feedback, or if the chat template refuses it."""
        feedback = (await self.feedback(text, outcome))[:LONGEST_FEEDBACK]
        for share in SHARES:
            try:
                prompt = self.ask(shortened(text, share), feedback)
            except ValueError as error:
                raise GradingFailed(f"no request for a better answer could be written: {error}") from error
            if len(prompt) <= self.room:
                return Revision(feedback, tuple(prompt), shortened=share < 1)
        return Revision(feedback, closed="context")


def refinable(spec: SearchSpec, rules: Verifier, params: SearchParams) -> Verifier:
    """Return the rules of a task whose answers can be refined. Raises `BadRequest` if the request's cannot."""
    if spec.branch is not None:
        raise BadRequest(
            "'refine' needs a prompt of its own: a branch goes on inside an answer",
            param="search.action.kind",
        )
    if not rules.gives_feedback():
        able = ", ".join(registry.with_feedback())
        raise BadRequest(f"'refine' needs a task that gives feedback: {able}", param="search.action.kind")
    if rules.feedback_needs_outcome and params.grader not in ("verifier", "mixed"):
        raise BadRequest(
            "'refine' needs grader 'verifier' or 'mixed' here: without a verdict the task has nothing to say of an "
            "answer to this problem",
            param="search.grader",
        )
    return rules


def asker(spec: SearchSpec, prompt: str, template: str, tokenizer: Tokenizer) -> Ask:
    """Return how prompts are made of answers to a request. prompt: its text. Raises `BadRequest` if `template` lacks
    what it must name, or if nothing can follow the conversation."""
    _check_places(template, ("feedback",) if spec.messages else ("prompt", "answer", "feedback"))
    if spec.messages and spec.messages[-1].role == "assistant":
        raise BadRequest(
            "must not end with the assistant's turn under action 'refine': an answer is a turn of its own",
            param="messages",
        )

    def of_text(answer: str, feedback: str) -> list[int]:
        return tokenizer.encode(filled(template, prompt=prompt, answer=answer, feedback=feedback))

    def of_turns(answer: str, feedback: str) -> list[int]:
        request = filled(template, prompt=prompt, answer=answer, feedback=feedback)
        turns = [("assistant", answer), ("user", request)]
        said = [message.fields() for message in spec.messages]
        return tokenizer.encode_chat([*said, *({"role": r, "content": c} for r, c in turns)], spec.template)

    return of_turns if spec.messages else of_text


def check_room(ask: Ask, room: int, max_tokens: int) -> None:
    """Raise `BadRequest` if the request for a better answer cannot be written, or leaves no room for one."""
    try:
        least = len(ask("-", "-"))
    except ValueError as error:
        raise BadRequest(
            f"cannot go on with a request for a better answer: {str(error)[:200]}", param="messages"
        ) from error
    if least > room:
        raise BadRequest(
            f"is {max_tokens}: the problem and the request for a better answer have {least} tokens even without answer "
            f"and feedback, and leave no room for as many more in the model's {room + max_tokens}",
            param="sampling.max_tokens",
        )


def filled(template: str, **parts: str) -> str:
    """Put texts in place of their names in a template, each as it is: what an answer holds in braces stays there."""
    return re.sub(r"\{(prompt|answer|feedback)\}", lambda found: parts[found[1]], template)


def shortened(text: str, share: float) -> str:
    """Return a share of a text, from its beginning and its end."""
    if share == 1:
        return text
    half = max(1, int(len(text) * share / 2))
    return f"{text[:half]}{GAP}{text[-half:]}"


def _check_places(template: str, names: tuple[str, ...]) -> None:
    missing = [f"{{{name}}}" for name in names if f"{{{name}}}" not in template]
    if not missing:
        return
    why = (
        ""
        if len(names) == 1
        else ": the prompt is no conversation (`messages`), so its template writes all of it"
    )
    raise BadRequest(f"lacks {' and '.join(missing)}{why}", param="search.action.template")
