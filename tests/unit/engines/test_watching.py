"""The ends of a draw that the scheduler finds token by token: those that the search finds in the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from ramify.engines.ports import Watch
from ramify.engines.vllm.watching import BEGUN, STOP, WATCH, ActionEnds, DrawWatch, HurdleWatch, TextEnds
from ramify.search.cutting import action_ends, first_stop
from ramify.search.records import Action, Hurdle
from ramify.tokens import TokenText

CORPUS = ["a cat\n\nsat on the mat.\n\n", "naïve → 3 + 5 = 8\n", "🙂🙃 no\n \n"] * 4
STOPS = [("\n",), ("\n\n",), ("→",), ("at", "\n\n"), ("🙂",), (" = 8\n", "a")]


@dataclass
class Spelling:
    """A byte-level tokenizer, which spreads one character over several tokens and joins line ends to others."""

    text: TokenText
    closing: frozenset[int] = field(default_factory=frozenset)


def byte_level() -> tuple[RustTokenizer, Any]:
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    text = TokenText(tokenizer.decode, tokenizer.get_vocab_size(), tokenizer.encode("a").ids[-1])
    return tokenizer, Spelling(text, frozenset(t for t, piece in text.pieces.items() if piece.isspace()))


RUST, TOKENIZER = byte_level()
PROMPT = RUST.encode("the ").ids
TOKENS = st.one_of(
    st.lists(st.integers(0, RUST.get_vocab_size() - 1), max_size=24),
    st.lists(st.sampled_from(CORPUS), min_size=1, max_size=3).map(
        lambda words: RUST.encode("".join(words)).ids
    ),
)


@pytest.mark.parametrize("stops", STOPS)
@settings(deadline=None, max_examples=60)
@given(tokens=TOKENS)
def test_a_stop_string_is_completed_by_the_token_that_completes_it_in_the_whole_text(
    stops: tuple[str, ...], tokens: list[int]
) -> None:
    text, ends = TOKENIZER.text.spell(PROMPT, tokens)
    found = first_stop(text, stops)
    first = next((i for i, end in enumerate(ends) if found and end >= found[1]), None)
    watch = TextEnds(stops, PROMPT, TOKENIZER)
    assert next((i for i, token in enumerate(tokens) if watch.completed(token)), None) == first


@pytest.mark.parametrize(
    "action",
    [
        *(Action("step", stops, cap) for stops in STOPS for cap in (3, 64)),
        Action("chunk", (), 5),
        Action("token"),
    ],
    ids=str,
)
@settings(deadline=None, max_examples=60)
@given(tokens=TOKENS)
def test_actions_end_where_the_search_cuts_them(action: Action, tokens: list[int]) -> None:
    watch = ActionEnds(action, PROMPT, TOKENIZER)
    ended = [i + 1 for i, token in enumerate(tokens) if watch.ended(token)]
    cut = action_ends(*TOKENIZER.text.spell(PROMPT, tokens), action)
    assert [end for end in cut if end < len(tokens)] == [end for end in ended if end < len(tokens)]


A, NEWLINE, TAIL = RUST.encode("a").ids[0], RUST.token_to_id("Ċ"), RUST.encode("b").ids[0]


def below(action: Action, hurdle: Hurdle, row: Sequence[tuple[int, float]], length: int = 0) -> list[bool]:
    """Feed tokens with the logits of the states that they were sampled from."""
    watch = HurdleWatch(Watch(hurdle, action, length, (1.0, 0.0)), PROMPT, TOKENIZER)
    return [watch.below(token, logit) for token, logit in row]


HALF = Hurdle(rate=0.5, mean_length=1_000_000)
"""Above every value of an answer far from its mean length."""


def test_an_action_that_ends_in_a_closing_token_is_judged_with_that_token() -> None:
    hurdle = Hurdle(rate=0.1, mean_length=8)  # 0.5 after three tokens
    step = Action("step", ("\n",))
    assert below(step, hurdle, [(A, -9), (A, -9), (NEWLINE, 0.1), (A, -9), (A, -9)]) == [False] * 5
    assert below(step, hurdle, [(A, 9), (A, 9), (NEWLINE, -0.1)]) == [False, False, True]


def test_an_action_that_says_something_to_its_end_is_judged_with_the_next_token() -> None:
    chunk = Action("chunk", (), 2)
    hurdle = Hurdle(rate=0.1, mean_length=7)  # 0.5 after two tokens
    assert below(chunk, hurdle, [(A, -9), (A, -9), (A, 0.1), (A, -9)]) == [False] * 4
    assert below(chunk, hurdle, [(A, 9), (A, 9), (A, -0.1)]) == [False, False, True]


def test_the_hurdle_falls_with_what_the_answer_has_already() -> None:
    step, hurdle = Action("step", ("\n",)), Hurdle(rate=0.1, mean_length=8)
    row = [(A, 0.0), (A, 0.0), (NEWLINE, -0.1)]
    assert below(step, hurdle, row, length=0)[-1]
    assert not below(step, hurdle, row, length=1)[-1]


def test_an_action_may_begin_in_the_prompt() -> None:
    hurdle = Hurdle(rate=0.1, mean_length=8)
    for action, begun in ((Action("chunk", (), 3), [A, A]), (Action("step", ("a\nb",)), [A, NEWLINE])):
        held = HurdleWatch(Watch(hurdle, action, 2, (1.0, 0.0)), PROMPT, TOKENIZER, begun)
        assert [held.below(token, -9.0) for token in (TAIL, A)] == [False, True]
        # without them in the prompt, the action would not have ended
        assert not any(below(action, hurdle, [(TAIL, -9.0), (A, -9.0)], length=2))


def test_a_value_is_calibrated_before_it_is_held_against_the_hurdle() -> None:
    plain = {"hurdle": Hurdle(0.1, 8), "action": Action("step", ("\n",)), "length": 0}
    for calibration, gone in (((1.0, 0.0), False), ((1.0, -2.0), True), ((-1.0, 0.0), True)):
        watch = HurdleWatch(Watch(**plain, calibration=calibration), PROMPT, TOKENIZER)  # type: ignore[arg-type]
        assert [watch.below(token, 1.0) for token in (A, A, NEWLINE)] == [False, False, gone]


def test_what_goes_with_a_request_comes_out_as_it_went_in() -> None:
    watch = Watch(HALF, Action("step", ("\n", "→"), 9), 7, (1.5, -0.5))
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(watch)))
    assert msgspec.convert(plain, Watch) == watch


def test_a_stop_string_may_begin_in_what_a_draw_begins_with() -> None:
    prompt = [*PROMPT, A, NEWLINE]
    for begun, end in ((2, "stop"), (1, "stop"), (0, None)):
        watch = DrawWatch({STOP: ["\n\n"], BEGUN: begun}, prompt, TOKENIZER)
        assert watch.end(NEWLINE, None) == end


def test_a_stop_string_ends_an_answer_before_its_hurdle_does_and_without_a_value_head_none_is_held() -> None:
    asked = {STOP: ["a\n"], WATCH: msgspec.to_builtins(Watch(HALF, Action("step", ("\n",)), 0, (1.0, 0.0)))}
    assert DrawWatch(asked, PROMPT, TOKENIZER).end(NEWLINE, -9.0) == "abandoned"
    both = DrawWatch(asked, PROMPT, TOKENIZER)
    assert [both.end(token, -9.0) for token in (A, NEWLINE)] == [None, "stop"]
    alone = DrawWatch(asked, PROMPT, TOKENIZER)
    assert [alone.end(token, None) for token in (TAIL, NEWLINE)] == [None, None]
