"""Every field of OpenAI's routes: who honours it, with `search` and without, and which values ask for nothing.

One row decides what the wire takes of a field that nobody honours, which fields go to vLLM, what is refused beside
`search`, and what the table in docs/openai.md says. Clients and routers add fields that mean nothing as they stand
(`no_stop_trim: false`); those are taken. A field that asks for something is honoured or refused by its name, never
dropped: a parameter that is dropped in silence leads to the answer to another question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Use = Literal["vllm", "service", "label", "neutral", "told"]
"""`vllm`: vLLM's request class has it and honours it. `service`: honoured by us. `label`: taken, and without effect by
its nature. `neutral`: taken if it holds a value that asks for nothing, else refused. `told`: taken, since programs
always send it, and the reply says that it had no effect."""
Route = Literal["completions", "chat", "responses"]


@dataclass(frozen=True, slots=True)
class Cell:
    """How one route takes a field without `search`."""

    use: Use
    takes: str = ""
    """Values taken, for the documentation; empty if `use` says it all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One field. A route whose cell is `None` has no such field."""

    completions: Cell | None
    chat: Cell | None
    search: Use
    """How the field is taken beside `search`."""
    neutral: tuple[Any, ...] = ()
    """Values that ask for nothing; null and absence always do."""
    reason: str = "has no effect here"
    """Why another value is refused on a route that does not honour the field."""
    search_takes: str = ""
    """Values beside `search`, for the documentation."""
    responses: Cell | None = None

    def cell(self, route: Route) -> Cell | None:
        cell: Cell | None = getattr(self, route)
        return cell


def _vllm(takes: str = "yes") -> Cell:
    return Cell("vllm", takes)


def _ours(takes: str = "yes") -> Cell:
    return Cell("service", takes)


def _both(cell: Cell, search: Use = "neutral", **rest: Any) -> Row:
    return Row(cell, cell, search, **rest)


def _chat(cell: Cell, search: Use = "neutral", **rest: Any) -> Row:
    return Row(None, cell, search, **rest)


def _never(*neutral: Any, reason: str) -> Row:
    """A field that no route honours."""
    return Row(_NEUTRAL, _NEUTRAL, "neutral", neutral, reason)


def _never_in_chat(*neutral: Any, reason: str) -> Row:
    return Row(None, _NEUTRAL, "neutral", neutral, reason)


_NEUTRAL, _LABEL = Cell("neutral"), Cell("label")
_NO_TOOLS = "give `tools` and `tool_choice`"
_CONSTRAIN = "give `structured_outputs`"
_STORED = "nothing is stored under it here; searches are in the tree log"

FIELDS: Mapping[str, Row] = {
    # what is asked
    "model": _both(_ours("yes; absent: the one served"), "service"),
    "prompt": Row(
        _ours("text, token ids, or up to 1024 of either"), None, "service", search_takes="one prompt"
    ),
    "messages": _chat(_ours("see below; the model needs a chat template"), "service"),
    "search": _both(_ours("see above"), "service"),
    # how it is sampled
    "n": _both(_ours("1 to 128; 1 at temperature 0"), "service", search_takes="1 to 64"),
    "max_tokens": Row(
        _ours("from 0 (with `echo`)"), _ours("older name of `max_completion_tokens`"), "service"
    ),
    "max_completion_tokens": _chat(_ours(), "service"),
    "temperature": _both(
        _vllm("0 to 2"), "service", search_takes="yes; 0 becomes the default, unless the search is greedy"
    ),
    "top_p": _both(_vllm("above 0, to 1"), "service"),
    "top_k": _both(_vllm("0 and -1 keep all tokens"), "service"),
    "min_p": _both(_vllm("0 to 1"), neutral=(0,)),
    "frequency_penalty": _both(_vllm("−2 to 2"), neutral=(0,)),
    "presence_penalty": _both(_vllm("−2 to 2"), neutral=(0,)),
    "repetition_penalty": _both(_vllm("above 0, to 10"), neutral=(1,)),
    "logit_bias": _both(_vllm("−100 to 100 for each of up to 1024 token ids"), neutral=({},)),
    "seed": _both(
        _ours("64 bits; choice i is drawn with seed + i"), "service", search_takes="the search's seed"
    ),
    "stop": _both(_vllm("a string, or up to 64"), "service"),
    "stop_token_ids": _both(_vllm("up to 64"), neutral=([],)),
    "include_stop_str_in_output": _both(_vllm(), neutral=(False,)),
    "min_tokens": _both(_vllm(), neutral=(0,)),
    "ignore_eos": _both(_vllm(), "told", neutral=(False,)),
    "skip_special_tokens": _both(_vllm(), neutral=(True,)),
    # what comes back
    "stream": _both(_ours(), "service"),
    "stream_options": _both(_ours("see below"), "service"),
    "echo": Row(_ours(), _NEUTRAL, "neutral", (False,), "the prompt is not sent back in a chat"),
    "logprobs": Row(_vllm("0 to 5"), _vllm("true or false"), "service", search_takes="0; true or false"),
    "top_logprobs": _chat(_vllm("0 to 20, with `logprobs`"), neutral=(0,)),
    # what it may write
    "response_format": _both(_vllm("`text`, `json_object`, `json_schema`"), neutral=({"type": "text"},)),
    "structured_outputs": _both(
        _vllm("one of `json`, `json_object`, `regex`, `choice`, `grammar`, `structural_tag`")
    ),
    "tools": _chat(
        _vllm("functions; unless `tool_choice` is `none` it needs `engine.tool_parser`"), neutral=([],)
    ),
    "tool_choice": _chat(_vllm("`none`, `auto`, `required`, or a function"), neutral=("none",)),
    "parallel_tool_calls": _chat(_vllm(), neutral=(False, True)),
    # the chat template
    "chat_template_kwargs": _chat(_vllm("what the model's chat template knows, up to 16"), "service"),
    "add_generation_prompt": _chat(_vllm(), "service"),
    "continue_final_message": _chat(_vllm("turns `add_generation_prompt` off"), "service"),
    "reasoning_effort": Row(
        _NEUTRAL,
        _vllm("`none` to `max`; `none` turns thinking off if the template can"),
        "service",
        ("none",),
        "a completion goes through no chat template",
    ),
    "include_reasoning": _chat(_vllm(), neutral=(True,)),
    # labels
    "user": _both(_LABEL, "label"),
    "metadata": _both(_LABEL, "label"),
    "safety_identifier": _both(_LABEL, "label"),
    "prompt_cache_key": _both(_LABEL, "label"),
    # OpenAI's, not served
    "best_of": Row(
        _ours('only as large as `n`: ask for `"search": {"algorithm": "best_of_n"}`'),
        None,
        "service",
        search_takes="same",
    ),
    "suffix": Row(_NEUTRAL, None, "neutral", ("",), "text cannot be inserted: the model only writes on"),
    "functions": _never_in_chat([], reason=_NO_TOOLS),
    "function_call": _never_in_chat("none", reason=_NO_TOOLS),
    "web_search_options": _never_in_chat(reason="no search engine is asked here"),
    "modalities": _never_in_chat(["text"], reason="only text is written here"),
    "audio": _never_in_chat(reason="only text is written here"),
    "prediction": _never_in_chat(reason="predicted outputs are not served here"),
    "verbosity": _never_in_chat("medium", reason="it would have no effect: ask in the prompt"),
    "prompt_cache_retention": _never_in_chat(reason="cached prefixes are kept while there is room"),
    "store": _never(False, reason=_STORED),
    "service_tier": _never("auto", "default", reason="there is one tier: auto or default"),
    # vLLM's and SGLang's, not served
    "regex": _never(reason=_CONSTRAIN),
    "ebnf": _never(reason=_CONSTRAIN),
    "json_schema": _never(reason=_CONSTRAIN),
    "no_stop_trim": _never(False, reason="`include_stop_str_in_output` keeps the string that ends an answer"),
    "return_hidden_states": _never(False, reason="hidden states are not sent"),
    "separate_reasoning": _never(True, reason="reasoning is never mixed into the answer by request"),
    "stream_reasoning": _never(True, reason="a stream holds back no reasoning"),
    "lora_path": _never(reason="adapters are not served: publish a release"),
    "session_params": _never(reason="there are no sessions; prefixes are cached without them"),
    "use_beam_search": _never(False, reason='ask for `"search": {"algorithm": "beam"}`'),
    "length_penalty": _never(1, reason="it is a parameter of vLLM's beam search, which is not served"),
    "priority": _never(0, reason="requests have no priority"),
    "bad_words": _never([], reason="`logit_bias` keeps tokens out"),
    "allowed_token_ids": _never(reason="`logit_bias` keeps tokens out"),
    "spaces_between_special_tokens": _never(True, reason="texts are decoded as vLLM decodes by default"),
    "truncate_prompt_tokens": _never(reason="prompts are not cut: shorten it"),
    "prompt_logprobs": _never(reason="a completion's `echo` with `logprobs` has them"),
    "return_token_ids": _never(False, reason="replies hold text; /v1/trees has the tokens of a search"),
    "return_tokens_as_token_ids": _never(
        False, reason="replies hold text; /v1/trees has the tokens of a search"
    ),
    "chat_template": _never_in_chat(reason="only the model's own template is run"),
    "documents": _never_in_chat([], reason="put documents into the messages"),
}


MESSAGES: Mapping[str, Row] = {
    "role": _chat(_ours("`developer`, `system`, `user`, `assistant`, `tool`"), "service"),
    "content": _chat(
        _ours("text, or parts of text, which are joined by line breaks; null beside `tool_calls`"), "service"
    ),
    "name": _chat(_ours("given to the chat template"), "service"),
    "id": _chat(_LABEL, "label"),
    "tool_calls": _chat(_vllm("calls that the model made"), neutral=([],)),
    "tool_call_id": _chat(_vllm("the call that a `tool` message answers")),
    "reasoning": _chat(_vllm("what the model thought; `reasoning_content` too")),
    "reasoning_content": _chat(_vllm("older name of `reasoning`")),
    "function_call": _never_in_chat(reason="give `tool_calls`"),
    "refusal": _never_in_chat(reason="refusals are not given to the chat template"),
    "audio": _never_in_chat(reason="only text is read here"),
    "annotations": _never_in_chat([], reason="annotations are not given to the chat template"),
}
"""The same for the fields of a message."""

STREAM_OPTIONS: Mapping[str, Row] = {
    "include_usage": _both(_ours("one more chunk with the usage before `[DONE]`"), "service"),
    "continuous_usage_stats": _both(
        _ours("with `include_usage`: every chunk has the usage so far"), "service"
    ),
    "include_obfuscation": _both(_LABEL, "label"),
}
"""The same for `stream_options`."""


def _response(cell: Cell, *neutral: Any, reason: str = "has no effect here") -> Row:
    return Row(None, None, "neutral", neutral, reason, responses=cell)


_NOTHING_KEPT = "nothing is stored: send the whole conversation as `input`"
RESPONSES: Mapping[str, Row] = {
    "model": _response(_ours("yes; a name that stands for a search is refused")),
    "input": _response(
        _vllm("text, or items `message`, `function_call`, `function_call_output`, `reasoning`; text only")
    ),
    "instructions": _response(_vllm()),
    "max_output_tokens": _response(_ours("absent: `limits.answer_tokens`, or the model's room")),
    "temperature": _response(_vllm("0 to 2")),
    "top_p": _response(_vllm("above 0, to 1")),
    "top_k": _response(_vllm("0 and -1 keep all tokens")),
    "min_p": _response(_vllm("0 to 1")),
    "frequency_penalty": _response(_vllm("−2 to 2")),
    "presence_penalty": _response(_vllm("−2 to 2")),
    "repetition_penalty": _response(_vllm("above 0, to 10")),
    "seed": _response(_ours("64 bits")),
    "stop": _response(_vllm("a string, or up to 64")),
    "ignore_eos": _response(_vllm()),
    "stream": _response(_ours("OpenAI's events")),
    "tools": _response(_vllm("functions; unless `tool_choice` is `none` it needs `engine.tool_parser`")),
    "tool_choice": _response(_vllm("`none`, `auto`, `required`, or a function")),
    "parallel_tool_calls": _response(_vllm()),
    "text": _response(_vllm("`format`: `text`, `json_object`, `json_schema`")),
    "structured_outputs": _response(_vllm("as in a chat")),
    "reasoning": _response(_vllm("`effort`, given to the chat template")),
    "include_reasoning": _response(_vllm()),
    "chat_template_kwargs": _response(_vllm("what the model's chat template knows, up to 16")),
    "include": _response(_vllm("`message.output_text.logprobs`")),
    "top_logprobs": _response(_vllm("0 to 20")),
    "metadata": _response(_vllm("sent back, without effect")),
    "user": _response(_LABEL),
    "safety_identifier": _response(_LABEL),
    "prompt_cache_key": _response(_LABEL),
    "store": _response(Cell("label", "taken; nothing is stored, so nothing can be fetched or deleted")),
    "search": _response(_NEUTRAL, reason="is not served on this route: POST /v1/chat/completions takes it"),
    "previous_response_id": _response(_NEUTRAL, reason=_NOTHING_KEPT),
    "conversation": _response(_NEUTRAL, reason=_NOTHING_KEPT),
    "background": _response(_NEUTRAL, False, reason="nothing is stored that could be fetched later"),
    "prompt": _response(_NEUTRAL, reason="no templates are stored: send `instructions` and `input`"),
    "truncation": _response(_NEUTRAL, "disabled", reason="prompts are not cut: shorten it"),
    "max_tool_calls": _response(_NEUTRAL, reason="no tool is called here: the client calls it"),
    "service_tier": _response(_NEUTRAL, "auto", "default", reason="there is one tier: auto or default"),
    "stream_options": _response(
        _NEUTRAL, {}, {"include_obfuscation": False}, reason="usage is in the last event"
    ),
    "prompt_cache_retention": _response(_NEUTRAL, reason="cached prefixes are kept while there is room"),
}
"""The fields of POST /v1/responses, which searches nothing."""


def unhonoured(route: Route, fields: Mapping[str, Row] = FIELDS) -> Iterator[tuple[str, Row]]:
    """Yield the fields that a route takes only if they ask for nothing."""
    for name, row in fields.items():
        cell = row.cell(route)
        if cell is not None and cell.use == "neutral":
            yield name, row


def to_vllm(route: Route) -> frozenset[str]:
    """Return the fields that go to vLLM under their own names."""
    cells = ((name, row.cell(route)) for name, row in (RESPONSES if route == "responses" else FIELDS).items())
    return frozenset(name for name, cell in cells if cell is not None and cell.use == "vllm")


def asks(row: Row, value: Any) -> bool:
    """Return whether a value asks for something."""
    return value is not None and not any(value == neutral for neutral in row.neutral)


def table(fields: Mapping[str, Row]) -> list[str]:
    """Write the rows of a Markdown table: field, completions, chat, beside `search`."""
    lines = []
    for name, row in fields.items():
        plain = [
            (cell and (cell.takes or _said(row, cell.use))) or "" for cell in (row.completions, row.chat)
        ]
        said = [*plain, row.search_takes or _said(row, row.search)]
        shown = [
            "same" if before == text not in ("", "yes") else text
            for before, text in zip(["", *said], said, strict=False)
        ]
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    return lines


def responses_table() -> list[str]:
    """Write the rows of a Markdown table of POST /v1/responses: field, what is taken."""
    return [
        f"| `{name}` | {row.responses.takes or _said(row, row.responses.use)} |"
        for name, row in RESPONSES.items()
        if row.responses is not None
    ]


def _said(row: Row, use: Use) -> str:
    if use in ("label", "told"):
        return "taken, without effect" + ("; the reply says so" if use == "told" else "")
    if use != "neutral":
        return "yes"
    values = " or ".join(f"`{json.dumps(value)}`" for value in row.neutral)
    return f"refused, unless {values}" if values else "refused"
