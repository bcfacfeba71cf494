"""Cut a continuation into actions, and find the stop string that ends an answer.

Delimiters and stop strings are looked for in decoded text and never in token ids, since a tokenizer may split or join
them differently in context. `ends[i]` is always the number of characters of a text that are decoded once token i is in
(`Continuation.ends`, `tokens.TokenText.spell`), so that the search, its OpenAI answers and the trainer's judge cut
alike, whatever the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ramify.search.records import Action, Continuation, Terminal

MAX_STEP_STOPS = 8
"""Delimiters: the stop strings of one step."""
MAX_STOPS = 64
"""Stop strings of one answer."""
MAX_STOP_CHARS = 128
"""Characters of one stop string, a step's or an answer's."""


@dataclass(frozen=True, slots=True)
class SampledAction:
    """One action that was drawn from the policy."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    release: str
    """The release whose weights sampled it."""
    terminal: Terminal | None = None
    """Reason for which the answer ends here; `None` if it goes on."""
    value: float | None = None
    """The expected outcome at its end, in [0, 1], from the policy or the value model; `None` if neither was asked."""
    outcome: float | None = None
    """The verifier's verdict, in [0, 1]; `None` if it was not asked, or failed."""
    scores: Mapping[str, float] | None = None
    """Value that each scorer gave it, in [0, 1], by its name in the settings; one that has no name is left out."""
    pruned_by: str | None = None
    """The safety scorer that has closed the branch here; `None` unless `terminal` is `pruned`."""
    policy: str = ""
    """See `Continuation.policy`."""
    taken: int = 0
    """See `Continuation.taken`."""

    @property
    def drawn(self) -> int:
        """Tokens that it cost."""
        return len(self.tokens) - self.taken

    @property
    def complete(self) -> bool:
        """It ends a complete answer. One that is cut short is not complete."""
        return self.terminal in ("eos", "stop")

    @classmethod
    def joined(cls, actions: Sequence[SampledAction]) -> SampledAction:
        """Join actions in a row into one, judged as the last of them is."""
        return replace(
            actions[-1],
            tokens=tuple(token for action in actions for token in action.tokens),
            logprobs=tuple(logprob for action in actions for logprob in action.logprobs),
            text="".join(action.text for action in actions),
            taken=sum(action.taken for action in actions),
        )


def cut(continuation: Continuation, action: Action | None) -> list[SampledAction]:
    """Cut a continuation into actions; into a single one if `action` is `None`. An action's value is the one that the
    policy gave its last token."""
    size = len(continuation.token_ids)
    actions, start = [], 0
    for end in [size] if action is None else action_ends(continuation.text, continuation.ends, action):
        text = continuation.text[continuation.ends[start - 1] if start else 0 : continuation.ends[end - 1]]
        tokens, logprobs = continuation.token_ids[start:end], continuation.logprobs[start:end]
        value = continuation.values[end - 1] if continuation.values else None
        taken = min(len(tokens), max(0, continuation.taken - start))
        drawn = (tokens, logprobs, text, continuation.release)
        actions.append(SampledAction(*drawn, value=value, policy=continuation.policy, taken=taken))
        start = end
    return actions


def given_up_at(actions: Sequence[SampledAction], action: Action) -> int:
    """Return how many actions of a draw that was abandoned count: as far as the last whole one that the policy had
    judged. The engine may have written on past it while it judged."""
    return next((i for i in range(len(actions), 0, -1) if _judged_whole(actions[i - 1], action)), 0)


def _judged_whole(sampled: SampledAction, action: Action) -> bool:
    whole = len(sampled.tokens) == (1 if action.kind == "token" else action.max_tokens)
    if action.kind == "step":
        whole = whole or first_stop(sampled.text, action.stop) is not None
    return whole and sampled.value is not None


def action_ends(text: str, ends: Sequence[int], action: Action) -> list[int]:
    """Return the index after the last token of each action, in order.

    A `step` ends with the token that completes a delimiter, or at the token cap. A token that holds the delimiter and
    more belongs to the step that it ends. The end token alone is an action of its own if the step before it had
    already ended."""
    cap = 1 if action.kind == "token" else action.max_tokens
    indices: list[int] = []
    start = 0
    while start < len(ends):
        end = min(len(ends), start + cap)
        if action.kind == "step":
            stop = first_stop(text, action.stop, begin=ends[start - 1] if start else 0)
            if stop is not None:
                end = next((i + 1 for i in range(start, end) if ends[i] >= stop[1]), end)
        indices.append(end)
        start = end
    return indices


def first_stop(text: str, stops: Sequence[str], *, begin: int = 0, seen: int = 0) -> tuple[int, int] | None:
    """Return begin and end, in characters, of the stop string that `text` completes first; `None` if there is none.

    begin: it must not begin before this character. seen: it must be completed after so many characters."""
    spans = []
    for stop in stops:
        at = text.find(stop, max(begin, seen - len(stop) + 1))
        if at >= 0:
            spans.append((at + len(stop), at))
    if not spans:
        return None
    end, at = min(spans)
    return at, end
