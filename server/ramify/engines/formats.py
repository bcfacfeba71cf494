"""The input of a model that judges: a prompt and an answer so far, in that model's own template and tokens.

A published reward model was trained on one form of input and judges no other well: its chat template with special
tokens kept, its system message, a tag after each step at which it is read. `Format` says which form, and `InputWriter`
makes the input of a state of a search.

A state is judged at the last token of its input, so an input ends with the tag of the last step. Then the input of an
answer's first steps begins that of the whole answer, and a causal model judges all of them in one pass (`scorer`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from ramify.engines.errors import EngineError
from ramify.engines.tokenizer import Tokenizer
from ramify.search.records import State
from ramify.tokens import CONTEXT

Message = Mapping[str, str]
Write = Callable[[Sequence[Sequence[int]]], list[list[int]]]
"""Makes a model's inputs of prompts and answers so far, the policy's token ids."""
MARKS = ("Qzuser0", "Qzassistant1", "Qzuser2", "Qzsystem3")
"""Contents of the messages by which a chat template is learned: no template writes them by itself."""
PIECES_KEPT = 4096
"""Steps whose tokens, and actions whose texts, are remembered."""
PROMPTS_KEPT = 256
"""Prompts whose conversations are remembered."""


@dataclass(frozen=True, slots=True)
class Format:
    """The form of input that a model was trained on."""

    layout: Literal["tokens", "text", "chat"]
    """The policy's own token ids; the plain text; the model's chat template, the answer as the assistant's message."""
    system: str | None = None
    """System message, in place of the prompt's own."""
    opening: str = ""
    """Text between prompt and answer, in a plain text."""
    split: str = ""
    """Text that ends a step of the answer; empty: each action of the search is a step."""
    tag: str = ""
    """Text after each step, judged at its last token; empty: the answer is one piece, judged at the input's end."""
    separator: str = ""
    """Text between a tag and the next step."""
    apart: bool = False
    """Prompt, steps and tags are encoded one by one, so that no token holds parts of two."""
    rubric: str = ""
    """Question in place of the conversation: `{question}` and `{answer}` are filled in, the model's turn follows."""


FORMATS: Mapping[str, Format] = {
    "tokens": Format("tokens"),
    "text": Format("text"),
    "chat": Format("chat"),
    # https://huggingface.co/Qwen/Qwen2.5-Math-PRM-7B
    "qwen-prm": Format(
        "chat",
        system="Please reason step by step, and put your final answer within \\boxed{}.",
        split="\n\n",
        tag="<extra_0>",
    ),
    # https://huggingface.co/peiyi9979/math-shepherd-mistral-7b-prm
    "math-shepherd": Format("text", opening=" ", split="\n", tag=" ки", separator="\n"),
    # trl.experimental.prm.PRMTrainer.tokenize_row
    "trl-prm": Format("text", split="\n", tag="\n", apart=True),
}
RUBRIC = """{question}

A proposed answer, which may be unfinished:
{answer}

Is it right as far as it goes? Say Yes or No."""


class InputWriter:
    """Makes the input of a model that judges, out of a state of a search.

    What prompt and answer hold of the model's special tokens is taken out of their text: no answer writes a turn or a
    tag of its own.
    """

    def __init__(self, form: Format, judge: Tokenizer, policy: Tokenizer) -> None:
        """judge, policy: the tokenizers of the model that judges and of the one that writes."""
        self._form = form
        self._judge = judge
        self._read = StateReader(policy)
        added = judge.hf.added_tokens_decoder.values()
        special = {token.content for token in added if token.special or token.content == form.tag}
        self._piece = lru_cache(PIECES_KEPT)(judge.encode_continuation)
        self._special = sorted(special - {""}, key=len, reverse=True)

    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the input of each `State`. Raises `EngineError` if the model's chat template refuses it.

        If tags say how far each goes, only the longest of states that begin one another is encoded."""
        if self._form.apart:
            return [self._in_pieces(sequence) for sequence in sequences]
        texts = [self._text(sequence) for sequence in sequences]
        if not self._form.tag or self._form.rubric:
            return [list(self._encode(text).input_ids) for text in texts]
        inputs: list[list[int]] = [[]] * len(texts)
        encoded: list[tuple[str, list[int], list[tuple[int, int]]]] = []
        for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
            text = texts[i]
            cuts = (_cut(ids, at, len(text)) for longer, ids, at in encoded if longer.startswith(text))
            known = next(filter(None, cuts), None)
            if known is None:
                found = self._encode(text, return_offsets_mapping=True)
                encoded.append((text, list(found.input_ids), _of_text(found.offset_mapping)))
                known = _cut(*encoded[-1][1:], len(text)) or encoded[-1][1]
            inputs[i] = known
        return inputs

    def _read_clean(self, sequence: Sequence[int]) -> tuple[list[Message], list[str]]:
        """Return messages and actions without special tokens."""
        conversation, actions = self._read(sequence)
        said = self._clean([*(m["content"] for m in conversation), *actions])
        messages: list[Message] = [
            {"role": m["role"], "content": text} for m, text in zip(conversation, said, strict=False)
        ]
        return messages, said[len(messages) :]

    def _clean(self, texts: Sequence[str]) -> list[str]:
        """Return texts that follow one another without special tokens: neither whole ones, nor such as two texts, or
        what a removed one parted, would make together."""
        whole = "".join(texts)
        if not any(token in whole for token in self._special):
            return list(texts)
        left, ends = "", list[int]()
        for text in texts:
            for letter in text:
                left += letter
                if token := next(filter(left.endswith, self._special), ""):
                    left = left.removesuffix(token)
                    ends = [min(end, len(left)) for end in ends]
            ends.append(len(left))
        return [left[a:b] for a, b in pairwise([0, *ends])]

    def _steps(self, actions: Sequence[str]) -> list[str]:
        """Return the steps of an answer, at least one."""
        form, text = self._form, "".join(actions)
        if not form.tag:
            return [text]
        steps = text.split(form.split) if form.split else actions
        return [step.strip() for step in steps if step.strip()] or [""]

    def _tagged(self, steps: Sequence[str]) -> str:
        return self._form.separator.join(step + self._form.tag for step in steps)

    def _text(self, sequence: Sequence[int]) -> str:
        """Return the input of a state as text, as far as its last tag."""
        messages, actions = self._read_clean(sequence)
        form = self._form
        if form.rubric:
            return self._asked(messages, "".join(actions))
        answer = self._tagged(self._steps(actions))
        if form.layout != "chat":
            return _question(messages) + form.opening + answer
        text = self._render([*self._told(messages), {"role": "assistant", "content": answer}], False)
        if not form.tag:
            return text
        at = text.rfind(answer)
        if at < 0:
            raise EngineError(
                "the chat template of the model that judges changes the answer: its tags are lost"
            )
        return text[: at + len(answer)]

    def _asked(self, messages: Sequence[Message], answer: str) -> str:
        filled = {"{question}": _question(messages), "{answer}": answer}
        parts = re.split(r"(\{question\}|\{answer\})", self._form.rubric)
        text = "".join(filled.get(part, part) for part in parts)
        if self._form.layout != "chat":
            return text
        return self._render(self._told([{"role": "user", "content": text}]), True)

    def _in_pieces(self, sequence: Sequence[int]) -> list[int]:
        """Return the input of a state whose prompt, steps and tags are encoded one by one."""
        messages, actions = self._read_clean(sequence)
        form, bos = self._form, self._judge.hf.bos_token_id
        steps = (piece for step in self._steps(actions) for piece in (step, form.tag))
        tokens = [] if bos is None else [bos]
        for piece in (_question(messages) + form.opening, *steps):
            tokens += self._piece(piece)
        return tokens

    def _told(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages with the format's system message in place of their own."""
        if self._form.system is None:
            return messages
        others = [m for m in messages if m["role"] != "system"]
        return [{"role": "system", "content": self._form.system}, *others]

    def _render(self, messages: Sequence[Message], turn: bool) -> str:
        try:
            return str(
                self._judge.hf.apply_chat_template(
                    [dict(m) for m in messages], tokenize=False, add_generation_prompt=turn
                )
            )
        except Exception as error:  # templates are programs: they raise what they like
            raise EngineError(
                f"the chat template of the model that judges refuses a prompt: {error}"
            ) from error

    def _encode(self, text: str, **options: Any) -> Any:
        """Encode a text with the special tokens around it, which a chat template has written already."""
        return self._judge.hf(text, add_special_tokens=self._form.layout != "chat", **options)


def _cut(ids: list[int], offsets: Sequence[tuple[int, int]], end: int) -> list[int] | None:
    """Return the tokens of a text as far as its character `end`; `None` if one token holds what is on both sides."""
    for i in reversed(range(bisect_left(offsets, (end,)))):
        begin, past = offsets[i]
        if begin < min(end, past):
            return ids[: i + 1] if past <= end else None
    return None


def _of_text(offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return offsets of tokens without those at the end that are special and have no characters: they rise then."""
    size = len(offsets)
    while size and offsets[size - 1] == (0, 0):
        size -= 1
    return list(offsets[:size])


class StateReader:
    """Reads a state of a search as text: the messages of its prompt, and the actions of its answer.

    Messages are read back out of the prompt's tokens by the chat template of the policy that wrote it. The template is
    learned from conversations whose contents are known. What is read counts only if the template makes the same text of
    it again; any other prompt is one message of the user.
    """

    def __init__(self, policy: Tokenizer) -> None:
        self._policy = policy
        self._heads: list[tuple[str, str]] = []
        """Text before the first message of a user, and, if that has a system message, between these two."""
        self._turn = self._next = ""
        """Text between a message of the user and the model's turn, and between this and the next of a user."""
        self._conversation = lru_cache(PROMPTS_KEPT)(self.conversation)
        self._spelled = lru_cache(PIECES_KEPT)(lambda before, tokens: policy.spell(before, tokens)[0])
        if policy.hf.chat_template:
            # A template that takes no such conversation raises what it likes: what is learned by then holds.
            with suppress(Exception):
                self._learn()

    def __call__(self, sequence: Sequence[int]) -> tuple[tuple[Message, ...], list[str]]:
        """Return the messages of the prompt and the texts of the actions, at least one.

        A sequence that is no `State` does not tell prompt and answer apart: it is a prompt without an answer."""
        ends = sequence.ends if isinstance(sequence, State) else (len(sequence),)
        messages, begun = self._conversation(tuple(sequence[: ends[0]]))
        first, *others = [
            self._spelled(tuple(sequence[max(0, a - CONTEXT) : a]), tuple(sequence[a:b]))
            for a, b in pairwise(ends)
        ] or [""]
        return messages, [begun + first, *others]

    def _render(self, messages: Sequence[Message]) -> str:
        return str(
            self._policy.hf.apply_chat_template(
                [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
            )
        )

    def _learn(self) -> None:
        user, assistant, again, system = MARKS
        first = {"role": "user", "content": user}
        head, self._turn = self._render([first]).split(user)
        self._heads.append((head, ""))
        before, rest = self._render([{"role": "system", "content": system}, first]).split(system)
        self._heads.append((before, rest.partition(user)[0]))
        answered = [{"role": "assistant", "content": assistant}, {"role": "user", "content": again}]
        self._next = self._render([first, *answered]).partition(assistant)[2].partition(again)[0]

    def conversation(self, prompt: tuple[int, ...]) -> tuple[tuple[Message, ...], str]:
        """Return the messages of a prompt, and what the answer begins with if the prompt holds its beginning."""
        written = str(
            self._policy.hf.decode(prompt, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )
        for head, middle in self._heads:
            # The last one first: to the first one, further turns are the beginning of an answer.
            for messages, begun in reversed(list(self._candidates(written, head, middle))):
                if self._render(messages) + begun == written:
                    return tuple(messages), begun
        return ({"role": "user", "content": self._policy.decode(prompt)},), ""

    def _candidates(self, text: str, head: str, middle: str) -> Iterator[tuple[list[Message], str]]:
        messages: list[Message] = []
        if not text.startswith(head) or not self._turn:
            return
        text = text.removeprefix(head)
        if middle:
            system, found, text = text.partition(middle)
            if not found:
                return
            messages.append({"role": "system", "content": system})
        while True:
            user, found, text = text.partition(self._turn)
            if not found:
                return
            messages = [*messages, {"role": "user", "content": user}]
            yield messages, text
            if not self._next or self._next not in text:
                return
            assistant, _, text = text.partition(self._next)
            messages = [*messages, {"role": "assistant", "content": assistant}]


def _question(messages: Sequence[Message]) -> str:
    return "\n\n".join(m["content"] for m in messages if m["role"] != "system")
