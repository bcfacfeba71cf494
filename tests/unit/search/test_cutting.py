"""Ends of actions: delimiters are matched on text, whatever the tokenizer made of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ramify.search.cutting import cut
from ramify.search.records import Action, Continuation

LINE = Action("step", ("\n",), 16)


def step(*texts: str, finish: str = "eos") -> Continuation:
    """A continuation of one token for each text; the id of a token is its place."""
    ends, at = [], 0
    for text in texts:
        at += len(text)
        ends.append(at)
    size = len(texts)
    logprobs = tuple(-float(i) for i in range(size))
    return Continuation(tuple(range(size)), "".join(texts), logprobs, tuple(ends), finish, "fake")  # type: ignore[arg-type]


def pieces(found: Continuation, action: Action = LINE) -> list[tuple[tuple[int, ...], str]]:
    return [(piece.tokens, piece.text) for piece in cut(found, action)]


def test_a_step_ends_with_its_delimiter():
    assert pieces(step("1", "\n", "2", "\n")) == [((0, 1), "1\n"), ((2, 3), "2\n")]


def test_a_token_that_holds_the_delimiter_and_more_belongs_to_the_step_it_ends():
    assert pieces(step("1", "\n2", "+", "\n")) == [((0, 1), "1\n2"), ((2, 3), "+\n")]


def test_a_delimiter_split_over_tokens_ends_the_step_where_it_is_whole():
    assert pieces(step("a", "<", "/s", ">b", "c"), Action("step", ("</s>",), 16)) == [
        ((0, 1, 2, 3), "a</s>b"),
        ((4,), "c"),
    ]


def test_of_several_delimiters_the_one_that_is_whole_first_counts():
    assert pieces(step("a", "\n", "\n", "b"), Action("step", ("\n\n", "\n"), 16)) == [
        ((0, 1), "a\n"),
        ((2,), "\n"),
        ((3,), "b"),
    ]


def test_a_delimiter_begun_in_one_step_is_not_completed_in_the_next():
    # the first step was cut by the cap between the two line breaks; the engine, asked step by step, could not see it
    assert pieces(step("a", "\n", "\n", "b"), Action("step", ("\n\n",), 2)) == [
        ((0, 1), "a\n"),
        ((2, 3), "\nb"),
    ]


def test_a_character_of_several_tokens_falls_to_the_step_that_completes_it():
    # "é" takes tokens 1 and 2; after token 1 nothing of it can be decoded yet
    bytes_ = Continuation((0, 1, 2, 3), "aé\n", (0.0,) * 4, (1, 1, 2, 3), "stop", "fake")
    assert pieces(bytes_, Action("step", ("\n",), 2)) == [((0, 1), "a"), ((2, 3), "é\n")]


def test_the_end_token_alone_is_an_action_of_its_own_after_a_delimiter():
    assert pieces(step("1", "\n", "")) == [((0, 1), "1\n"), ((2,), "")]


def test_the_end_token_belongs_to_a_step_that_had_not_ended():
    assert pieces(step("1", "")) == [((0, 1), "1")]


def test_a_step_ends_at_its_cap_where_no_delimiter_comes_first():
    assert pieces(step("a", "b", "c", "\n"), Action("step", ("\n",), 3)) == [((0, 1, 2), "abc"), ((3,), "\n")]


def test_chunks_and_tokens_are_counted_and_know_no_delimiter():
    written = step("a", "\n", "b", "c", "d")
    assert [tokens for tokens, _ in pieces(written, Action("chunk", ("\n",), 2))] == [(0, 1), (2, 3), (4,)]
    assert [tokens for tokens, _ in pieces(written, Action("token"))] == [(0,), (1,), (2,), (3,), (4,)]


@given(
    st.lists(st.text("ab\n", max_size=3), min_size=1, max_size=12),
    st.sampled_from([("\n",), ("ab",), ("\n\n", "b"), ("a\nb",)]),
    st.integers(1, 6),
)
def test_pieces_put_together_are_the_continuation(texts: list[str], stop: tuple[str, ...], cap: int):
    whole = step(*texts)
    found = cut(whole, Action("step", stop, cap))
    assert tuple(t for piece in found for t in piece.tokens) == whole.token_ids
    assert tuple(p for piece in found for p in piece.logprobs) == whole.logprobs
    assert "".join(piece.text for piece in found) == whole.text
    assert all(0 < len(piece.tokens) <= cap for piece in found)
