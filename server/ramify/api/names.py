"""Searches that are asked for by name: by the model's name, or in the header `x-ramify-search`.

Many clients can set a model and nothing else. `countdown-tiny:mcts` searches with an algorithm's defaults, and the
name of an operator's alias with the search object of `[aliases.NAME]`. A request says how to search in one place only,
by the model's name, in the header or in its body. Two of them are refused, so that nobody need know which one wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Header
from pydantic import Field, ValidationError

from ramify.api import convert, errors, wire_search
from ramify.api.openai import requests as wire
from ramify.api.wire_batch import BatchRequest
from ramify.api.wire_common import Reply
from ramify.engines import Serving
from ramify.rewards import registry
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import ParamError, search_params
from ramify.service.errors import BadRequest, unknown_model
from ramify.service.ports import Engines
from ramify.settings import BadSettings, Settings
from ramify.weights import SearchDefaults, ValueKind

HEADER = "x-ramify-search"
BESIDE = ("task", "defaults", "train")
"""Fields of a search by name that stand beside `search` in POST /v1/search."""
SearchHeader = Annotated[
    str | None,
    Header(
        alias=HEADER,
        min_length=1,
        max_length=8192,
        description="How to search, in place of `search`: its JSON object, an algorithm, or an operator's alias.",
    ),
]
Body = TypeVar("Body", wire.CompletionRequest, wire.ChatRequest)
Native = TypeVar("Native", wire_search.SearchRequest, BatchRequest)


class Model(Reply):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ramify"] = "ramify"
    root: str = Field(description="The release that is served.")
    parent: str | None = Field(default=None, description="The model that a name for a search searches with.")
    search: dict[str, Any] | None = Field(
        default=None, description="The search that the name stands for; null for the model itself."
    )
    search_defaults: list[SearchDefaults] = Field(
        default=[],
        description="How the model searches if a request does not say: the first entry that covers the budget. Empty: "
        "as the algorithm's own defaults say.",
    )
    value: ValueKind | Literal["scorer"] | None = Field(
        default=None,
        description="What judges answers: a value `model`, a value head on the policy's `trunk`, or a `scorer` of the "
        "operator's; null: no model, and searches go by the policy's own `confidence`.",
    )
    remote: bool = Field(
        default=False,
        description="True if another server draws: its weights have no release here, and none can be activated.",
    )
    max_model_len: int = Field(description="Tokens of prompt and answer together.")


class ModelList(Reply):
    object: Literal["list"] = "list"
    data: list[Model]


def model_of(serving: Serving, max_model_len: int) -> Model:
    return Model(
        id=serving.name,
        created=serving.created,
        root=serving.release,
        search_defaults=list(serving.search),
        value=serving.value,
        remote=serving.remote,
        max_model_len=max_model_len,
    )


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The names under which models and searches are asked for."""

    engines: Engines
    aliases: Mapping[str, wire.Search]
    """The operator's, by name."""

    def resolve(self, body: Body, header: str | None) -> Body:
        """Return the request as if it had named the served model and said how to search in its body.

        Raise `ServiceError` for an unknown model, a bad header, and a search that is given twice."""
        model, search = self._resolved(body.model, header, body.search)
        return body.model_copy(update={"model": model, "search": search})

    def resolve_native(self, body: Native, header: str | None) -> Native:
        """Do the same for POST /v1/search and its batch: `task`, `defaults` and `train` stand beside `search` there,
        and win over a name's."""
        model, search = self._resolved(body.model, header, body.search)
        if search is None or search is body.search:
            return body.model_copy(update={"model": model})
        said: dict[str, Any] = {name: getattr(search, name) for name in BESIDE}
        beside = {
            name: value
            for name, value in said.items()
            if value is not None and name not in body.model_fields_set
        }
        given = search.model_dump(exclude_unset=True, exclude=set(BESIDE))
        own = wire_search.Search.model_validate(given)
        return body.model_copy(update={"model": model, "search": own, **beside})

    def without_search(self, model: str | None, header: str | None) -> str | None:
        """Return the served model's name, for a route that does not search. Raise `BadRequest` for a search by name."""
        if header is not None or (model is not None and self._named(model) is not None):
            raise BadRequest(
                "asks for a search, which this route does not do: POST /v1/chat/completions does",
                param=HEADER if header is not None else "model",
            )
        return model

    def served_name(self, name: str | None) -> str | None:
        """Return the served model's name for any name of it, and None for None. Raise `ServiceError` if unknown."""
        if name is None:
            return None
        self._named(name)
        return self.engines.serving.name

    def listed(self, max_model_len: int) -> Iterator[Model]:
        """Yield the served model, then every name that stands for a search with it."""
        model = model_of(self.engines.serving, max_model_len)
        yield model
        for algorithm in ALGORITHMS:
            yield self._listed(model, f"{model.id}:{spoken(algorithm)}", {"algorithm": algorithm})
        for name, search in self.aliases.items():
            yield self._listed(model, name, search.model_dump(exclude_unset=True))

    @staticmethod
    def _listed(model: Model, name: str, search: dict[str, Any]) -> Model:
        return model.model_copy(
            update={"id": name, "parent": model.id, "search": search, "search_defaults": []}
        )

    def _resolved(self, model: str | None, header: str | None, body: Any) -> tuple[str | None, Any]:
        given = {
            "by the model's name": None if model is None else self._named(model),
            f"in the header {HEADER}": None if header is None else self._from_header(header),
            "in the body": body,
        }
        said = [place for place, search in given.items() if search is not None]
        if len(said) > 1:
            raise BadRequest(f"is given {' and '.join(said)}: give it once", param="search")
        return None if model is None else self.engines.serving.name, given[said[0]] if said else None

    def _named(self, name: str) -> wire.Search | None:
        """Return the search that a model's name stands for; None for the model itself."""
        if name == self.engines.serving.name:
            return None
        if name in self.aliases:
            return self.aliases[name]
        base, _, rest = name.rpartition(":")
        search = self._known(rest) if base == self.engines.serving.name else None
        if search is None:
            raise unknown_model(name, self.engines.serving.name)
        return search

    def _known(self, name: str) -> wire.Search | None:
        if name in self.aliases:
            return self.aliases[name]
        algorithm = name.replace("-", "_")
        if algorithm not in ALGORITHMS:
            return None
        return wire.Search(algorithm=algorithm)

    def _from_header(self, header: str) -> wire.Search:
        if header.lstrip().startswith("{"):
            try:
                given: wire.Search = wire.Search.model_validate_json(header)
            except ValidationError as error:
                raise BadRequest(problems_of(error), param=HEADER) from error
            return given
        search = self._known(header.strip())
        if search is None:
            known = ", ".join([*map(spoken, ALGORITHMS), *self.aliases])
            raise BadRequest(f"is neither a JSON object nor one of {known}", param=HEADER)
        return search


def aliases_of(settings: Settings) -> dict[str, wire.Search]:
    """Return the operator's aliases, checked as a request's `search` would be. Raise `BadSettings`."""
    aliases = {}
    for name, alias in settings.aliases.items():
        setting = f"aliases.{name}"
        if name.replace("-", "_") in ALGORITHMS:
            raise BadSettings(f"{setting}: is the name of an algorithm: choose another")
        try:
            search = aliases[name] = wire.Search.model_validate(alias.search)
            _check(search)
        except ValidationError as error:
            raise BadSettings(f"{setting}.search: {problems_of(error)}") from error
        except ParamError as error:
            raise BadSettings(f"{setting}.search: {error}") from error
    return aliases


def spoken(algorithm: str) -> str:
    """Return an algorithm's name as it stands in a model's name."""
    return algorithm.replace("_", "-")


def problems_of(error: ValidationError) -> str:
    """Say in one line what is wrong with a search object."""
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":
        return f"is not valid JSON: {problems[0]['ctx']['error']}"
    return errors.summary(problems, wire.Search)


def _check(search: wire.Search) -> None:
    """Raise `ParamError` if no request could ask for `search`."""
    fields = dict(convert.given(search))
    task, *_ = fields.pop("task", {}), fields.pop("train", None), fields.pop("defaults", None)
    if task and task["name"] not in registry.names():
        raise ParamError("task.name", f"there are {', '.join(registry.names())}")
    algorithm = fields.pop("algorithm", "mcts")
    defaults = search_params(algorithm)
    for name in fields.keys() & {"action", "budget"}:
        fields[name] = replace(getattr(defaults, name), **fields[name])
    search_params(algorithm, **fields)
