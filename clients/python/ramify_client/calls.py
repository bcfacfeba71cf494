"""Every call of the API as data: what to send, and how to read the answer. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar, Unpack
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from ramify_client import results
from ramify_client.errors import InvalidAnswer

Parsed = TypeVar("Parsed")
Shape = TypeVar("Shape", bound=BaseModel)


Message = Mapping[str, str]
"""`role` and `content`."""
Text = str | Sequence[int]
"""Text, or token ids."""


class AnswerOptions(TypedDict, total=False):
    """Options of whatever ends in an answer. The server chooses what is absent or `None`, and its errors name the
    field."""

    n: int | None
    """Distinct final answers in `candidates`, best first."""
    include_tree: bool | None
    """Send the whole tree with the answer."""
    train: bool | None
    """False: the trainer must not learn from this search."""
    deadline: float | None
    """Seconds from the request's arrival after which the server sends its best answer so far."""
    stream_options: Mapping[str, Any] | None
    """For streams only; with `{"nodes": True}` every `progress` carries what has grown."""
    idempotency_key: str | None
    """One search for one key; absent, the client makes one up, so that a retry never searches twice."""


class BranchOptions(AnswerOptions, total=False):
    """Options of a search."""

    search: Mapping[str, Any] | None
    """`algorithm`, `budget`, `width` and so on."""
    sampling: Mapping[str, Any] | None
    """`temperature`, `top_p`, `top_k`, `max_tokens`, `stop` of one answer."""
    seed: int | None
    defaults: bool | None
    """False: nothing that is absent is filled in from the search defaults of the release."""


class SearchOptions(BranchOptions, total=False):
    """Options of a search that names its prompt: those of a branch, and these."""

    messages: Sequence[Message] | None
    """A conversation, in place of `prompt`."""
    chat_template_kwargs: Mapping[str, Any] | None
    """Variables of the model's chat template, such as `enable_thinking`; `messages` only."""
    task: Mapping[str, Any] | None
    """`name` and `problem`: what answers are judged by."""
    model: str | None


class BatchOptions(BranchOptions, total=False):
    """Options of a batch: those of a branch for all of its searches, and these."""

    task: Mapping[str, Any] | None
    """The task of the prompts that name none."""
    model: str | None
    parallel: int | None
    """Simulations in flight, of all searches together."""


@dataclass(frozen=True)
class Call(Generic[Parsed]):
    """One request."""

    method: str
    path: str
    parse: Callable[[bytes], Parsed]
    json: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """True if sending it twice does what sending it once does; only then is it tried again."""


def read(shape: type[Shape]) -> Callable[[bytes], Shape]:
    """Return a parser of JSON of this shape. It raises `InvalidAnswer`."""
    return _parser(shape.model_validate_json, shape.__name__)


def _parser(validate: Callable[[bytes], Parsed], name: str) -> Callable[[bytes], Parsed]:
    def parse(body: bytes) -> Parsed:
        try:
            return validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the body"
            raise InvalidAnswer(f"the answer is not a {name}: {field}: {first['msg']}") from error

    return parse


_LOG_RECORD: TypeAdapter[results.LogRecord] = TypeAdapter(results.LogRecord)


def search(
    prompt: str | None, *, stream: bool = False, **options: Unpack[SearchOptions]
) -> Call[results.SearchResult]:
    """Search. A call without an Idempotency-Key gets one, so that a retry never searches twice."""
    messages = options.pop("messages", None)
    question = _given(prompt=prompt, messages=messages and [dict(message) for message in messages])
    return _searching("/v1/search", question, stream, options)


def branch(
    tree_id: str, node: int, *, stream: bool = False, **options: Unpack[BranchOptions]
) -> Call[results.SearchResult]:
    """Search from a node of a logged tree."""
    return _searching(f"/v1/trees/{_part(tree_id)}/branch", {"node": node}, stream, options)


def continue_search(
    search_id: str,
    budget: Mapping[str, Any] | None,
    *,
    stream: bool = False,
    **options: Unpack[AnswerOptions],
) -> Call[results.SearchResult]:
    """Let a search that has ended go on."""
    return _searching(f"/v1/search/{_part(search_id)}/continue", _given(budget=budget), stream, options)


def search_batch(
    prompts: Sequence[str | Mapping[str, Any]],
    budget: Mapping[str, Any],
    *,
    stream: bool = False,
    **options: Unpack[BatchOptions],
) -> Call[results.BatchResult]:
    """Search several prompts on one budget."""
    asked = [{"prompt": one} if isinstance(one, str) else dict(one) for one in prompts]
    body = {"prompts": asked, "budget": dict(budget)}
    return _asking("/v1/search/batch", results.BatchResult, body, stream, options)


def cancel_batch(batch_id: str) -> Call[results.BatchResult]:
    return Call("POST", f"/v1/search/batch/{_part(batch_id)}/cancel", read(results.BatchResult))


def _searching(
    path: str, question: dict[str, Any], stream: bool, options: AnswerOptions
) -> Call[results.SearchResult]:
    return _asking(path, results.SearchResult, question, stream, options)


def _asking(
    path: str, shape: type[Shape], question: dict[str, Any], stream: bool, options: AnswerOptions
) -> Call[Shape]:
    fields = _given(**options)
    key = fields.pop("idempotency_key", f"ramify-client-{uuid.uuid4().hex}")
    body = {**question, **fields, **({"stream": True} if stream else {})}
    return Call("POST", path, read(shape), body, headers={"Idempotency-Key": key})


def get_search(search_id: str, *, stream: bool = False) -> Call[results.SearchResult]:
    params = {"stream": True} if stream else {}
    return Call("GET", f"/v1/search/{_part(search_id)}", read(results.SearchResult), params=params)


def cancel(search_id: str) -> Call[results.SearchResult]:
    return Call("POST", f"/v1/search/{_part(search_id)}/cancel", read(results.SearchResult))


def value(prompt: Text, continuations: Sequence[Text], model: str | None) -> Call[results.Values]:
    body = _given(prompt=prompt, continuations=list(continuations), model=model)
    return Call("POST", "/v1/value", read(results.Values), body)


def list_trees(before: int | None, limit: int, filters: Mapping[str, Any]) -> Call[results.TreePage]:
    params = _given(before=before, limit=limit, **filters)
    return Call("GET", "/v1/trees", read(results.TreePage), params=params)


def read_trees(after: int, limit: int | None) -> Call[results.LogRecord]:
    """Read the log; the parser takes one line of the answer."""
    parse = _parser(_LOG_RECORD.validate_json, "log record")
    return Call("GET", "/v1/trees", parse, params=_given(after=after, limit=limit))


def get_tree(tree_id: str) -> Call[results.LoggedTree]:
    return Call("GET", f"/v1/trees/{_part(tree_id)}", read(results.LoggedTree))


def dot(tree_id: str) -> Call[str]:
    return Call("GET", f"/v1/trees/{_part(tree_id)}", _text, params={"format": "dot"})


def delete_tree(tree_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/trees/{_part(tree_id)}", _nothing, repeatable=False)


def feedback(tree_id: str, outcome: float, **options: Any) -> Call[results.Feedback]:
    body = _given(outcome=outcome, **options)
    path = f"/v1/trees/{_part(tree_id)}/feedback"
    return Call("POST", path, read(results.Feedback), body, repeatable=False)


def get_consumer(name: str) -> Call[results.Consumer]:
    return Call("GET", f"/v1/consumers/{_part(name)}", read(results.Consumer))


def list_consumers() -> Call[results.Listing[results.Consumer]]:
    return Call("GET", "/v1/consumers", read(results.Listing[results.Consumer]))


def delete_consumer(name: str) -> Call[None]:
    return Call("DELETE", f"/v1/consumers/{_part(name)}", _nothing, repeatable=False)


def put_consumer(name: str, version: int | None, **changes: Any) -> Call[results.Consumer]:
    """Register or change a reader. Not repeated: the first try may have moved the version on."""
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    path = f"/v1/consumers/{_part(name)}"
    return Call("PUT", path, read(results.Consumer), _given(**changes), headers=headers, repeatable=False)


def models() -> Call[results.Listing[results.Model]]:
    return Call("GET", "/v1/models", read(results.Listing[results.Model]))


def model(name: str) -> Call[results.Model]:
    return Call("GET", f"/v1/models/{_part(name)}", read(results.Model))


def version() -> Call[results.Version]:
    return Call("GET", "/version", read(results.Version))


def ready() -> Call[None]:
    return Call("GET", "/readyz", _nothing, repeatable=False)


def public_releases() -> Call[results.Releases]:
    return Call("GET", "/v1/releases", read(results.Releases))


def releases() -> Call[results.Releases]:
    return Call("GET", "/admin/releases", read(results.Releases))


def record_release(release: str, state: str, figures: Mapping[str, Any]) -> Call[None]:
    """Record a gate's decision. Repeatable: recording the same again changes nothing."""
    body = {"state": state, "figures": dict(figures)}
    return Call("PUT", f"/admin/releases/{_part(release)}", _nothing, body)


def activate(
    release: str, deadline_seconds: float, note: str, mode: str | None = None
) -> Call[results.Activation]:
    """Activate a release. Repeatable: the active one stays active."""
    body = _activation(deadline_seconds, note, mode)
    return Call("POST", f"/admin/releases/{_part(release)}/activate", read(results.Activation), body)


def rollback(deadline_seconds: float, note: str, mode: str | None = None) -> Call[results.Activation]:
    """Roll back. Not repeated: twice would go back and forth."""
    body = _activation(deadline_seconds, note, mode)
    return Call("POST", "/admin/releases/rollback", read(results.Activation), body, repeatable=False)


def _activation(deadline_seconds: float, note: str, mode: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"deadline_seconds": deadline_seconds, "note": note}
    return body if mode is None else {**body, "mode": mode}


def fleet() -> Call[results.Fleet]:
    return Call("GET", "/admin/fleet", read(results.Fleet))


def restore(replica: str) -> Call[results.Fleet]:
    """Take an evicted replica back. Not repeated: done once, it is no more evicted."""
    path = f"/admin/fleet/replicas/{_part(replica)}/restore"
    return Call("POST", path, read(results.Fleet), {}, repeatable=False)


def drain(deadline_seconds: float) -> Call[None]:
    return Call("POST", "/admin/drain", _nothing, {"deadline_seconds": deadline_seconds})


def _given(**fields: Any) -> dict[str, Any]:
    """Leave out what the caller has not given: the server chooses it."""
    return {name: value for name, value in fields.items() if value is not None}


def _part(name: str) -> str:
    """Quote one segment of a path, whatever it holds."""
    return quote(name, safe="")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidAnswer(f"the answer is not UTF-8: {error}") from error


def _nothing(_: bytes) -> None:
    return None
