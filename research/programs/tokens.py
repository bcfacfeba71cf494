"""How the network reads and writes: words with the blank before them, numbers and indentations, one token each."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerFast

from ramify.service.refinement import filled
from research.bootstrap.tokenizer import word_tokenizer
from research.programs.language import INPUTS, MOST, PUBLIC, VARIABLES

TEMPLATE = "{prompt}{answer}\n{feedback}\ndef f(x):\n"
"""How a better answer is asked for: the whole prompt, as the release says it (`refine_template`)."""
INDENT = "   "
"""Three blanks; the fourth belongs to the word behind them."""
_TEXT = """
def f(x): f(0..7): = # return + - * // % Public test of fails. Call: Expected: Got: All public tests pass. pass, but
that are not shown fail.
"""
_STARTS = ("f(0..7):", "def", "Public", "Call:", "Expected:", "Got:", "All")
"""Words that begin a line."""
_OPERANDS = [*VARIABLES, *map(str, INPUTS)]

VOCABULARY = [
    *("<pad>", "<s>", "</s>", "<unk>", "\n", INDENT),
    *(word if word in _STARTS else f" {word}" for word in _TEXT.split()),
    *(f" {name}" for name in VARIABLES),
    *(f" {function}({name}," for function in ("max", "min") for name in VARIABLES),
    *(f" {operand})" for operand in _OPERANDS),
    *(f" f({n})" for n in INPUTS),
    *(f" {n}" for n in range(-MOST, MOST + 1)),
]
"""The text of each token id."""
NUMBERS = {i: int(found[0]) for i, text in enumerate(VOCABULARY) if (found := re.search(r"-?\d+", text))}
"""The number that a token holds, by token id."""
INDEX = {text: i for i, text in enumerate(VOCABULARY)}
PAD, BOS, EOS, UNKNOWN, NEWLINE = range(5)
COMMENT = INDEX[" #"]
POSITIONS = 256
LONGEST_ANSWER = 64
PROMPT = 1 + 1 + len(PUBLIC) + 1 + 3
"""Tokens of a problem's prompt."""
_PIECE = re.compile(r" ?[^ \n]+|\n| +(?= )")


def encode(text: str) -> list[int]:
    """Return the token ids of a text, without a first `<s>`: those of the published tokenizer."""
    return [INDEX.get(piece, UNKNOWN) for piece in _PIECE.findall(text)]


def decode(tokens: list[int]) -> str:
    """Return the text of token ids, special tokens left out."""
    return "".join(VOCABULARY[token] for token in tokens if token > UNKNOWN)


def refining(prompt: str, answer: str, said: str) -> str:
    """Return the prompt that asks for a better answer."""
    return filled(TEMPLATE, prompt=prompt, answer=answer, feedback=said)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer as `transformers` and vLLM load it."""
    return word_tokenizer(VOCABULARY, POSITIONS)
