"""Ask for better answers, under `action: refine`: make the prompts that put an answer and the feedback on it to the
policy.

To a conversation the answer is added as the assistant's turn and the request as a further turn of the user's, and the
model's chat template writes all of it. A prompt that is no conversation needs a template that names its parts. Feedback
comes from the task, which tells what the model may know (`rewards.verifier.Verifier.feedback`); if the task has nothing
to say, the policy may be asked for a critique of its own answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from ramify.rewards import registry
from ramify.rewards.grading import BoundTask
from ramify.rewards.verifier import Verifier
from ramify.search.protocols import GradingFailed, Reviser, Write
from ramify.search.records import Revision, SearchParams
from ramify.service.errors import BadRequest
from ramify.service.ports import Tokenizer
from ramify.service.search_spec import SearchSpec

TEMPLATE = (
    "Here is feedback on your answer:\n\n{feedback}\n\n"
    "Write a better answer to the problem. Give the whole answer again, in the same form, not only what changes."
)
"""The turn that asks for a better answer, if neither request nor release nor task has words for it."""
CRITIQUE = (
    "Check your answer. Say briefly what is wrong with it, or could be better, and where. Do not write the answer "
    "again."
)
"""The turn that asks the policy for a critique of its own answer."""
LONGEST_FEEDBACK = 4_000
"""Characters of feedback that are put to the policy."""
SHARES = (1.0, 0.5, 0.25, 0.125)
"""Shares of an answer that are shown, the first that leaves room for another. One that can show less is no answer."""
GAP = "\n[…]\n"
"""Stands for the middle of an answer that is shown in part."""

Ask = Callable[[str, str], list[int]]
"""Give the prompt's token ids for an answer and its feedback. Raises `ValueError` if the chat template refuses."""
GiveFeedback = Callable[[str, float | None, Write], Awaitable[str]]
"""Say what is wrong with an answer, given the verdict on it and what the policy writes with. Raises `GradingFailed`."""


def reviser_of(give: GiveFeedback, ask: Ask, room: int) -> Reviser:
    """Return who makes the prompts of one search for better answers, each with the feedback on an answer. room: tokens
    that a prompt may have."""

    async def revise(text: str, outcome: float | None, write: Write) -> Revision:
        feedback = (await give(text, outcome, write))[:LONGEST_FEEDBACK]
        asked = prompt_within(room, ask, text, feedback)
        if asked is None:
            return Revision(feedback, closed="context")
        prompt, part = asked
        return Revision(feedback, prompt, shortened=part)

    return revise


def of_task(task: BoundTask) -> GiveFeedback:
    """Return the feedback that a task gives."""

    async def feedback(text: str, outcome: float | None, write: Write) -> str:
        return await task.feedback(text, outcome)

    return feedback


def of_policy(spec: SearchSpec, tokenizer: Tokenizer, length: int, answer: int, tokens: int) -> GiveFeedback:
    """Return the critique that the policy gives of its own answers to a conversation. length: tokens that the model
    takes. answer, tokens: of an answer and a critique, at most. Raises `BadRequest` if a critique leaves no room for an
    answer, or has none."""
    if tokens >= answer:
        raise BadRequest(
            f"is {answer}, of which a critique may take {tokens} (setting limits.critique_tokens)",
            param="sampling.max_tokens",
        )
    ask = in_turns(spec, CRITIQUE, tokenizer)
    if (least := least_tokens(ask)) > length - tokens:
        raise BadRequest(
            f"leave no room for a critique: with the request for one they have {least} tokens even without an answer, "
            f"and a critique may have {tokens} (setting limits.critique_tokens) of the model's {length}",
            param="messages",
        )

    async def feedback(text: str, outcome: float | None, write: Write) -> str:
        asked = prompt_within(length - tokens, ask, text, "")
        if asked is None:
            raise GradingFailed("the answer leaves no room to ask for a critique of it")
        critique = (await write(asked[0], tokens)).strip()
        if not critique:
            raise GradingFailed("the policy had nothing to say of the answer")
        return critique

    return feedback


def prompt_within(room: int, ask: Ask, answer: str, feedback: str) -> tuple[tuple[int, ...], bool] | None:
    """Return the prompt for an answer, with as much of the answer as `room` tokens hold, and whether that is a part;
    `None` if there is none. Raises `GradingFailed` if the chat template refuses it."""
    for share in SHARES:
        try:
            prompt = ask(shortened(answer, share), feedback)
        except ValueError as error:
            raise GradingFailed(f"no request for a better answer could be written: {error}") from error
        if len(prompt) <= room:
            return tuple(prompt), share < 1
    return None


def require_refinable(spec: SearchSpec, rules: Verifier, params: SearchParams, *, critical: bool) -> None:
    """Raise `BadRequest` if the answers to a request cannot be refined. critical: the server has answers criticised of
    which the task says nothing."""
    if spec.branch is not None:
        raise BadRequest(
            "'refine' needs a prompt of its own: a branch goes on inside an answer",
            param="search.action.kind",
        )
    if tells(rules, params) or (critical and spec.messages):
        return
    if rules.gives_feedback():
        raise BadRequest(
            "'refine' needs grader 'verifier' or 'mixed' here: without a verdict the task has nothing to say of an "
            "answer to this problem",
            param="search.grader",
        )
    able = ", ".join(registry.with_feedback())
    instead = "; of others, conversations (`messages`) alone are criticised here" if critical else ""
    raise BadRequest(
        f"'refine' needs a task that gives feedback: {able}{instead}", param="search.action.kind"
    )


def tells(rules: Verifier, params: SearchParams) -> bool:
    """Tell whether a task has something to say of the answers in a search."""
    graded = params.grader in ("verifier", "mixed")
    return rules.gives_feedback() and (graded or not rules.feedback_needs_outcome)


def asker(spec: SearchSpec, prompt: str, template: str, tokenizer: Tokenizer) -> Ask:
    """Return how prompts are made of answers to a request. prompt: its text. Raises `BadRequest` if `template` lacks
    what it must name, or if nothing can follow the conversation."""
    _check_places(template, ("feedback",) if spec.messages else ("prompt", "answer", "feedback"))

    def of_text(answer: str, feedback: str) -> list[int]:
        return tokenizer.encode(filled(template, prompt=prompt, answer=answer, feedback=feedback))

    return in_turns(spec, template, tokenizer, prompt) if spec.messages else of_text


def in_turns(spec: SearchSpec, template: str, tokenizer: Tokenizer, prompt: str = "") -> Ask:
    """Return how a conversation goes on: with the answer as the assistant's turn, and the template as the user's.
    Raises `BadRequest` if nothing can follow it."""
    if spec.messages[-1].role == "assistant":
        raise BadRequest(
            "must not end with the assistant's turn under action 'refine': an answer is a turn of its own",
            param="messages",
        )

    def of_turns(answer: str, feedback: str) -> list[int]:
        request = filled(template, prompt=prompt, answer=answer, feedback=feedback)
        turns = [("assistant", answer), ("user", request)]
        said = [message.fields() for message in spec.messages]
        return tokenizer.encode_chat([*said, *({"role": r, "content": c} for r, c in turns)], spec.template)

    return of_turns


def check_room(ask: Ask, room: int, max_tokens: int) -> None:
    """Raise `BadRequest` if the request for a better answer cannot be written, or leaves no room for one."""
    if (least := least_tokens(ask)) > room:
        raise BadRequest(
            f"is {max_tokens}: the problem and the request for a better answer have {least} tokens even without answer "
            f"and feedback, and leave no room for as many more in the model's {room + max_tokens}",
            param="sampling.max_tokens",
        )


def least_tokens(ask: Ask) -> int:
    """Return the tokens of a request about next to nothing. Raises `BadRequest` if it cannot be written."""
    try:
        return len(ask("-", "-"))
    except ValueError as error:
        raise BadRequest(
            f"cannot go on with a request for a better answer: {str(error)[:200]}", param="messages"
        ) from error


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
