"""The demo's tokenizer: exact text, the same ids everywhere."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.rewards.countdown import prompt
from ramify.rewards.countdown_data import walk
from research.bootstrap.tokenizer import BOS, EOS, NEWLINE, VOCABULARY, build_tokenizer, decode

TOKENIZER = build_tokenizer()


@given(st.lists(st.integers(1, 13), min_size=4, max_size=6), st.integers())
def test_prompts_and_answers_survive_a_round_trip(numbers: list[int], seed: int) -> None:
    steps = walk(numbers, random.Random(seed))
    text = prompt({"numbers": numbers, "target": steps[-1].c}) + "\n".join(map(str, steps))
    ids = TOKENIZER(text)["input_ids"]
    assert ids[0] == BOS
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == decode(ids) == text
    assert len(ids) == 1 + len(numbers) + 3 + 6 * len(steps) - 1


@given(st.lists(st.sampled_from(VOCABULARY[4:]), max_size=30))
def test_decoding_is_plain_concatenation_of_the_tokens_texts(words: list[str]) -> None:
    ids = [VOCABULARY.index(word) for word in words]
    assert TOKENIZER.decode(ids) == "".join(words) == decode(ids)


def test_a_prompt_begins_with_the_beginning_token_and_ends_with_a_newline() -> None:
    ids = TOKENIZER("3 5 7 8 to 24\n")["input_ids"]
    assert ids[0] == BOS
    assert ids[-1] == NEWLINE
    assert TOKENIZER.convert_tokens_to_ids("</s>") == EOS
    assert TOKENIZER("8 * 3 = 24", add_special_tokens=False)["input_ids"][0] != BOS


@pytest.mark.parametrize("content", ["3 5 to 8", "3 5 to 8\n"])
def test_the_chat_template_is_the_last_user_message_as_a_prompt(content: str) -> None:
    messages = [
        {"role": "user", "content": "1 2 to 3\n"},
        {"role": "assistant", "content": "2 + 1 = 3"},
        {"role": "user", "content": content},
    ]
    ids = TOKENIZER.apply_chat_template(messages)["input_ids"]
    assert ids == TOKENIZER("3 5 to 8\n")["input_ids"]


def test_unknown_words_are_one_unknown_token_and_no_error() -> None:
    assert VOCABULARY[TOKENIZER("3 hello to 8\n")["input_ids"][2]] == "<unk>"
    assert VOCABULARY[TOKENIZER("3 200 to 8\n")["input_ids"][2]] == "<unk>"
