"""Where one action ends and the next begins, in a continuation that may hold several."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.search.records import Action, Continuation


@dataclass(frozen=True, slots=True)
class Piece:
    """One action cut from a continuation: its token ids, their log-probs, and the text that they add."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str


def cut(step: Continuation, action: Action) -> list[Piece]:
    """Cut a continuation into actions.

    A `step` ends with the token in whose text a delimiter is completed, or at the token cap. Delimiters are looked for
    in the decoded text and never in token ids, since a tokenizer may split or join them differently in context; a
    token that holds the delimiter and more belongs to the step that it ends. The end token alone is an action of
    its own where the step before it had already ended.
    """
    pieces: list[Piece] = []
    start = 0
    while start < len(step.token_ids):
        end = _end(step, start, action)
        text = step.text[step.ends[start - 1] if start else 0 : step.ends[end - 1]]
        pieces.append(Piece(step.token_ids[start:end], step.logprobs[start:end], text))
        start = end
    return pieces


def _end(step: Continuation, start: int, action: Action) -> int:
    """Index after the last token of the action that begins at `start`."""
    size = 1 if action.kind == "token" else action.max_tokens
    limit = min(len(step.token_ids), start + size)
    if action.kind != "step":
        return limit
    begin = step.ends[start - 1] if start else 0
    found = [at + len(stop) for stop in action.stop if (at := step.text.find(stop, begin)) >= 0]
    if not found:
        return limit
    closes = min(found)
    return next((i + 1 for i in range(start, limit) if step.ends[i] >= closes), limit)
