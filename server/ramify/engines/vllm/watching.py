"""The ends of a draw that vLLM does not see, found token by token in its scheduler: stop strings, and hurdles.

vLLM looks for stop strings in its client, in text that it makes of every token of every step; the draw then leaves the
engine token by token, and ends a step late. Here the text of most tokens is looked up (`tokens.TokenText`).

A hurdle is held against a draw at the end of each action. The value of an answer is read at the state after its last
token, or before it if that token only closes (`tokens.closing_tokens`). A token is sampled from the state before it, so
the value of an action that ends in a closing token comes with that token, and of any other with the token that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from ramify.engines.ports import Watch
from ramify.engines.scorer import sigmoid
from ramify.engines.tokenizer import Tokenizer
from ramify.search.records import Action
from ramify.tokens import CONTEXT

STOP = "ramify_stop"
"""Key of a draw's stop strings in vLLM's `extra_args`."""
BEGUN = "ramify_begun"
"""Key of how many tokens at its prompt's end it begins with."""
WATCH = "ramify_watch"
"""Key of its `Watch`, as plain values."""
ABANDONED = "abandoned"
"""vLLM's `stop_reason` of a draw that did not clear its hurdle."""
End = Literal["stop", "abandoned"]


@cache
def tokenizer_of(model: str) -> Tokenizer:
    """Read a model's tokenizer, once in each process."""
    tokenizer = Tokenizer(Path(model))
    _ = tokenizer.closing  # goes through the vocabulary, which is best done before anybody waits
    return tokenizer


class DrawWatch:
    """One draw, watched while it grows."""

    def __init__(self, asked: dict[str, Any], prompt: Sequence[int], tokenizer: Tokenizer) -> None:
        """asked: vLLM's `extra_args` of the request. prompt: its token ids."""
        start = len(prompt) - asked.get(BEGUN, 0)
        above, begun = prompt[:start], prompt[start:]
        self._stops = TextEnds(asked.get(STOP, ()), above, tokenizer)
        for token in begun:
            self._stops.completed(token)
        self._line: HurdleWatch | None = None
        if (plain := asked.get(WATCH)) is not None:
            self._line = HurdleWatch(msgspec.convert(plain, Watch), above, tokenizer, begun)

    def end(self, token: int, logit: float | None) -> End | None:
        """Take the next token in, and return why the draw ends with it; `None` if it goes on.

        logit: of the state that the token was sampled from; `None` without a value head."""
        stopped = self._stops.completed(token)
        gone = self._line is not None and logit is not None and self._line.below(token, logit)
        return "stop" if stopped else "abandoned" if gone else None


class HurdleWatch:
    """The actions of a draw and what they are worth."""

    def __init__(
        self, watch: Watch, prompt: Sequence[int], tokenizer: Tokenizer, begun: Sequence[int] = ()
    ) -> None:
        """begun: tokens after the prompt with which the first action begins."""
        self._hurdle, self._calibration = watch.hurdle, watch.calibration
        self._closing = tokenizer.closing
        self._ends = ActionEnds(watch.action, prompt, tokenizer)
        for token in begun:
            self._ends.ended(token)
        self._length = watch.length
        self._waits = False
        """The token before ended an action, and did not close: the next row judges it."""

    def below(self, token: int, logit: float) -> bool:
        """Take the next token in, with the logit of the state that it was sampled from, and return whether the draw is
        below its hurdle at the end of an action."""
        below = self._waits and self._is_below(logit)
        self._length += 1
        ended = self._ends.ended(token)
        closes = token in self._closing
        self._waits = ended and not closes
        return below or (ended and closes and self._is_below(logit))

    def _is_below(self, logit: float) -> bool:
        a, b = self._calibration
        return sigmoid(a * logit + b) < self._hurdle.at(self._length)


class ActionEnds:
    """The ends of a draw's actions, which are those of `search.cutting.action_ends`."""

    def __init__(self, action: Action, prompt: Sequence[int], tokenizer: Tokenizer) -> None:
        self._cap = 1 if action.kind == "token" else action.max_tokens
        self._stops = TextEnds(action.stop if action.kind == "step" else (), prompt, tokenizer)
        self._tokens = 0

    def ended(self, token: int) -> bool:
        """Take the next token in, and return whether an action ends with it."""
        self._tokens += 1
        ended = self._stops.completed(token) or self._tokens >= self._cap
        if ended:
            self._tokens = 0
            self._stops.restart()
        return ended


class TextEnds:
    """Finds the token that completes a stop string in the text of a draw."""

    def __init__(self, stops: Sequence[str], prompt: Sequence[int], tokenizer: Tokenizer) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._text = tokenizer.text
        self._seen = list(prompt[-CONTEXT:])
        self._tail = ""
        """The end of the text since the beginning, or since `restart`: as much as may begin a stop string."""

    def completed(self, token: int) -> bool:
        """Take the next token in, and return whether it completes a stop string."""
        if not self._stops:
            return False
        text, _ = self._text.spell(self._seen, (token,))
        self._seen.append(token)
        tail = self._tail + text
        self._tail = tail[1 - self._longest :] if self._longest > 1 else ""
        return any(stop in tail for stop in self._stops)

    def restart(self) -> None:
        """Look only at what follows."""
        self._tail = ""
