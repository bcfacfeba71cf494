from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from models import write_tokenizer
from ramify.engines import Tokenizer
from ramify.tokens import TokenText, closing_tokens

CORPUS = ["the cat sat on the mat\n", "naïve café\n\n", "数学 → 証明", "🙂🙃 it's 3 + 5 = 8", "a\tb\r\n"] * 4


def byte_level() -> RustTokenizer:
    tokenizer = RustTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def metaspace() -> RustTokenizer:
    """Like Llama 2's: a leading space that decoding strips, and bytes for unknown characters."""
    pieces = ["<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "▁the", "▁cat", "the", "s", "a", "\n"]
    tokenizer = RustTokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


BYTES, META = byte_level(), metaspace()
TEXTS = {
    "byte-level": TokenText(BYTES.decode, BYTES.get_vocab_size(), BYTES.encode("a").ids[-1]),
    "metaspace": TokenText(META.decode, META.get_vocab_size(), META.token_to_id("the")),
}
DECODE = {"byte-level": BYTES.decode, "metaspace": META.decode}


@pytest.mark.parametrize("kind", TEXTS)
def test_joining_the_texts_of_tokens_is_found_to_be_decoding(kind: str) -> None:
    assert TEXTS[kind].concatenative


@pytest.mark.parametrize("kind", TEXTS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_text_lengths_rise_and_end_with_the_text(kind: str, data: st.DataObject) -> None:
    text = TEXTS[kind]
    ids = st.lists(st.integers(0, text.size - 1), max_size=24)
    spelt, ends = text.spell(data.draw(ids), tokens := data.draw(ids))
    assert len(ends) == len(tokens)
    assert list(ends) == sorted(ends)
    assert (ends[-1] if ends else 0) == len(spelt)


@settings(deadline=None, max_examples=50)
@given(words=st.lists(st.sampled_from(CORPUS), min_size=1, max_size=4), data=st.data())
def test_texts_of_consecutive_samples_join_to_the_whole_text_wherever_a_character_is_cut(
    words: list[str], data: st.DataObject
) -> None:
    text, ids = TEXTS["byte-level"], BYTES.encode("".join(words)).ids
    prompt = BYTES.encode("a").ids
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
    joined, seen = "", list(prompt)
    for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        spelt, _ = text.spell(seen, ids[begin:end])
        joined, seen = joined + spelt, seen + ids[begin:end]
    assert joined == "".join(words)


def test_a_character_spread_over_tokens_counts_to_the_token_that_finishes_it() -> None:
    smile = [
        BYTES.token_to_id(c)
        for c in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("🙂")[0][0]
    ]
    assert len(smile) == 4
    assert TEXTS["byte-level"].spell(BYTES.encode("a").ids, smile) == ("🙂", (0, 0, 0, 1))


def test_looking_texts_up_gives_what_decoding_step_by_step_gives() -> None:
    text = TEXTS["metaspace"]
    tokens = [META.token_to_id(piece) for piece in ("▁the", "▁cat", "s", "\n", "▁", "a")]
    prefix = [META.token_to_id("the")]
    assert (
        text.spell(prefix, tokens)
        == text._step_by_step(prefix, tokens)
        == (" the cats\n a", (4, 8, 9, 10, 11, 12))
    )


def test_the_end_token_adds_no_text(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    prompt = tokenizer.encode("3 5 to 8\n")
    answer = tokenizer.encode_continuation("5 + 3 = 8\n")
    (end,) = tokenizer.eos_ids
    text, ends = tokenizer.spell(prompt, [*answer, end])
    assert text == "5 + 3 = 8\n"
    assert ends == (1, 3, 5, 7, 9, 10, 10)


def test_end_tokens_and_whitespace_close_and_nothing_else_does(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    (newline,) = tokenizer.encode_continuation("\n")
    assert tokenizer.closing == tokenizer.eos_ids | {newline}
    assert tokenizer.hf.bos_token_id not in tokenizer.closing  # it has no text, and is no end


@pytest.mark.parametrize("kind", ["byte-level", "metaspace"])
def test_whitespace_closes_whatever_the_tokenizer_strips(kind: str) -> None:
    tokenizer = {"byte-level": BYTES, "metaspace": META}[kind]
    closing = closing_tokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer), [3])
    spaces = {"byte-level": ["Ġ", "Ċ", "ĉ"], "metaspace": ["▁", "\n", "<0x20>", "<0x0A>"]}[kind]
    words = {"byte-level": ["a", "Ġthe", "ð"], "metaspace": ["a", "▁the", "<0xF0>"]}[kind]
    assert {3, *map(tokenizer.token_to_id, spaces)} <= closing
    assert closing.isdisjoint(map(tokenizer.token_to_id, words))
