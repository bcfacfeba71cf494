from __future__ import annotations

from collections.abc import Sequence

from ramify.engines.tokenizer import stop_tokens
from ramify.tokens import TokenText


def text_of(*pieces: str) -> TokenText:
    def decode(tokens: Sequence[int]) -> str:
        return "".join(pieces[t] for t in tokens)

    return TokenText(decode, len(pieces), 0)


def test_a_newline_stops_at_every_token_that_holds_one() -> None:
    assert stop_tokens(text_of("a", "\n", ".\n", "b", "\n\n", "\n c"), ["\n"]) == (1, 2, 4, 5)


def test_several_delimiters_stop_at_the_tokens_of_each() -> None:
    assert stop_tokens(text_of("a", "\n", ";"), ["\n", ";"]) == (1, 2)


def test_a_string_that_tokens_could_spell_together_is_left_to_text_matching() -> None:
    assert stop_tokens(text_of("a", "\n", "\n\n"), ["\n\n"]) is None
    assert stop_tokens(text_of("a", "x<", "/s>"), ["</s>"]) is None


def test_a_long_string_that_only_one_token_can_hold_is_exact() -> None:
    assert stop_tokens(text_of("a", "</s>", "s>", " b"), ["</s>"]) == (1,)


def test_too_many_tokens_are_left_to_text_matching() -> None:
    pieces = ["a", *(f"{i}\n" for i in range(70))]
    assert stop_tokens(text_of(*pieces), ["\n"]) is None
    assert len(stop_tokens(text_of(*pieces), ["\n"], most=70) or ()) == 70


def test_characters_beyond_ascii_are_left_to_text_matching() -> None:
    assert stop_tokens(text_of("a", "。"), ["。"]) is None


def test_no_stop_strings_need_no_stop_tokens() -> None:
    assert stop_tokens(text_of("a", "\n"), []) == ()


def test_a_tokenizer_whose_texts_do_not_join_is_left_to_text_matching() -> None:
    def decode(tokens: Sequence[int]) -> str:  # a space between words, none before a full stop
        return " ".join("ab."[t] for t in tokens).replace(" .", ".").replace("a b", "ab")

    assert stop_tokens(TokenText(decode, 3, 0), ["."]) is None
