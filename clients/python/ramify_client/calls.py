"""Every call of the API as data: what to send, and how to read the answer. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from ramify_client import results
from ramify_client.errors import InvalidAnswer

Parsed = TypeVar("Parsed")
Shape = TypeVar("Shape", bound=BaseModel)
Message = Mapping[str, str]
Text = str | Sequence[int]


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
    """Whether sending it twice does what sending it once does; only then is it tried again."""


def read(shape: type[Shape]) -> Callable[[bytes], Shape]:
    """A reader of JSON of this shape. It raises `InvalidAnswer`."""

    def parse(body: bytes) -> Shape:
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise InvalidAnswer(f"the answer is no {shape.__name__}: {where}: {first['msg']}") from error

    return parse


def search(
    prompt: Text | None,
    messages: Sequence[Message] | None,
    *,
    idempotency_key: str | None,
    stream: bool = False,
    **options: Any,
) -> Call[results.SearchResult]:
    """A search. Without a key of the caller's it gets one, so that a retry never searches twice."""
    body = _given(
        prompt=prompt, messages=None if messages is None else [dict(m) for m in messages], **options
    )
    if stream:
        body["stream"] = True
    key = idempotency_key or f"ramify-client-{uuid.uuid4().hex}"
    return Call("POST", "/v1/search", read(results.SearchResult), body, headers={"Idempotency-Key": key})


def get_search(search_id: str) -> Call[results.SearchResult]:
    return Call("GET", f"/v1/search/{_part(search_id)}", read(results.SearchResult))


def cancel(search_id: str) -> Call[results.SearchResult]:
    return Call("POST", f"/v1/search/{_part(search_id)}/cancel", read(results.SearchResult))


def value(prompt: Text, continuations: Sequence[Text], model: str | None) -> Call[results.Values]:
    body = _given(prompt=prompt, continuations=list(continuations), model=model)
    return Call("POST", "/v1/value", read(results.Values), body)


def list_trees(before: int | None, limit: int, filters: Mapping[str, Any]) -> Call[results.TreePage]:
    params = _given(before=before, limit=limit, **filters)
    return Call("GET", "/v1/trees", read(results.TreePage), params=params)


def read_trees(after: int, limit: int | None) -> Call[results.LogRecord]:
    """One line of the answer at a time."""
    return Call("GET", "/v1/trees", read(results.LogRecord), params=_given(after=after, limit=limit))


def get_tree(tree_id: str) -> Call[results.LoggedTree]:
    return Call("GET", f"/v1/trees/{_part(tree_id)}", read(results.LoggedTree))


def dot(tree_id: str) -> Call[str]:
    return Call("GET", f"/v1/trees/{_part(tree_id)}", bytes.decode, params={"format": "dot"})


def delete_tree(tree_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/trees/{_part(tree_id)}", _nothing, repeatable=False)


def feedback(tree_id: str, outcome: float, **options: Any) -> Call[results.Feedback]:
    body = _given(outcome=outcome, **options)
    path = f"/v1/trees/{_part(tree_id)}/feedback"
    return Call("POST", path, read(results.Feedback), body, repeatable=False)


def get_consumer(name: str) -> Call[results.Consumer]:
    return Call("GET", f"/v1/consumers/{_part(name)}", read(results.Consumer))


def put_consumer(name: str, version: int | None, **changes: Any) -> Call[results.Consumer]:
    """Not repeated: the first try may have moved the version on."""
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    path = f"/v1/consumers/{_part(name)}"
    return Call("PUT", path, read(results.Consumer), _given(**changes), headers=headers, repeatable=False)


def models() -> Call[results.Models]:
    return Call("GET", "/v1/models", read(results.Models))


def version() -> Call[results.Version]:
    return Call("GET", "/version", read(results.Version))


def ready() -> Call[None]:
    return Call("GET", "/readyz", _nothing, repeatable=False)


def releases() -> Call[results.Releases]:
    return Call("GET", "/admin/releases", read(results.Releases))


def record_release(release: str, state: str, figures: Mapping[str, Any]) -> Call[None]:
    """Recording the same again changes nothing."""
    body = {"state": state, "figures": dict(figures)}
    return Call("PUT", f"/admin/releases/{_part(release)}", _nothing, body)


def activate(release: str, deadline_seconds: float, note: str) -> Call[results.Activation]:
    """The active one stays active, so this may be repeated."""
    body = {"deadline_seconds": deadline_seconds, "note": note}
    return Call("POST", f"/admin/releases/{_part(release)}/activate", read(results.Activation), body)


def rollback() -> Call[results.Activation]:
    """Twice would go back and forth."""
    return Call("POST", "/admin/releases/rollback", read(results.Activation), {}, repeatable=False)


def drain(deadline_seconds: float) -> Call[None]:
    return Call("POST", "/admin/drain", _nothing, {"deadline_seconds": deadline_seconds})


def _given(**fields: Any) -> dict[str, Any]:
    """Only what the caller has given: the rest is the server's to choose."""
    return {name: value for name, value in fields.items() if value is not None}


def _part(name: str) -> str:
    """One segment of a path, whatever it holds."""
    return quote(name, safe="")


def _nothing(_: bytes) -> None:
    return None
