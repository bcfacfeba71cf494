"""Search defaults: how a prompt is searched if its request does not say. A release carries them in its manifest::

    "search": [
      {"up_to": {"tokens": 600}, "search": {"algorithm": "best_of_n"}, "sampling": {"temperature": 0.8}},
      {"search": {"algorithm": "mcts", "kappa": 0.9, "abandon": true}, "sampling": {"temperature": 0.9}}
    ]

`search` and `sampling` are those of a request to POST /v1/search, checked by the same code. The first entry that covers
the request's budget is used as it stands: nothing is interpolated between two entries, so that a search can be read off
the manifest.

How cool a policy should draw is decided by the tokens that there are, and what a second is worth in tokens by the
machine and by how many search at once. So an entry may be for seconds by their worth (`seconds_worth`), and then suits
machines that nobody tuned it on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import ParamError, check_sampling, sampling_params, search_params
from ramify.search.records import Action, BudgetLimits, SearchParams

Worth = Callable[[float, int], float | None]
"""The tokens of the answers that a search would land in some seconds, with at most some draws in flight; `None` while
that is unknown (`search.crowd.Crowd.worth`)."""
OWN = {
    "search.budget": "is the request's to name",
    "search.action": "is the release's own, for every budget (default_action)",
    "sampling.max_tokens": "is the release's own, for every budget (default_max_tokens)",
}
"""Fields of a request that search defaults leave to others."""


Limit = Literal["tokens", "seconds", "seconds_worth"]
Most = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0)]


class SearchDefaults(BaseModel):
    """The search defaults of one range of budgets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    up_to: Annotated[dict[Limit, Most], Field(min_length=1, max_length=1)] | None = None
    """The largest budget that they are for: in generated tokens, in seconds, or in seconds that are worth so many
    tokens on this engine as the request arrives; while that is unknown, no seconds are. `None`: every budget."""
    search: dict[str, Any]
    """As `search` of a request, its `algorithm` named, without `budget` and `action`."""
    sampling: dict[str, Any] = {}
    """As `sampling` of a request, without `max_tokens`."""

    @property
    def algorithm(self) -> str:
        """The algorithm that searches. A request that names another one has nothing of these defaults."""
        algorithm: str = self.search["algorithm"]
        return algorithm

    def covers(self, budget: BudgetLimits, worth: Worth) -> bool:
        """Return whether these defaults are for a budget: it names the limit of `up_to`, and is within it."""
        if self.up_to is None:
            return True
        ((name, most),) = self.up_to.items()
        if name != "seconds_worth":
            limit = getattr(budget, name)
        elif budget.seconds is not None:
            limit = worth(budget.seconds, self.search.get("parallel", SearchParams().parallel))
        else:
            limit = None
        return limit is not None and limit <= most

    def check(self, action: Action) -> None:
        """Raise `ParamError` if a request that says the same would be refused. action: the release's."""
        for name in OWN:
            group, _, field = name.partition(".")
            if field in getattr(self, group):
                raise ParamError(name, OWN[name])
        if "algorithm" not in self.search:
            raise ParamError("search.algorithm", "is missing")
        try:
            kind = ALGORITHMS.get(str(self.algorithm))
            own: dict[str, Any] = {"action": action} if kind and "action" in kind.parameters else {}
            params = search_params(**self.search, **own)
        except ParamError as error:
            raise ParamError(f"search.{error.field}", error.message) from None
        check_sampling(params, sampling_params(**self.sampling))


def check_search_defaults(entries: Sequence[SearchDefaults], action: Action) -> None:
    """Raise `ParamError`, naming entry and field, unless every budget has its defaults and every entry a use."""
    largest: dict[str, float] = {}
    for i, entry in enumerate(entries):
        try:
            entry.check(action)
        except ParamError as error:
            raise ParamError(f"{i}.{error.field}", error.message) from None
        last = i == len(entries) - 1
        if last and entry.up_to is not None:
            raise ParamError(f"{i}.up_to", "the last entry is for every budget that is left: leave it out")
        if not last and entry.up_to is None:
            raise ParamError(f"{i}.up_to", "is missing: without it no budget is left for the entries below")
        for name, most in (entry.up_to or {}).items():
            if most <= largest.get(name, 0):
                raise ParamError(
                    f"{i}.up_to", f"no budget is left for it: an entry above is up to {largest[name]:g}"
                )
            largest[name] = most


def unknown_worth(seconds: float, most: int) -> None:
    """The worth of seconds before anything is known of the engine: `None`."""


def for_budget(
    entries: Sequence[SearchDefaults], budget: BudgetLimits, worth: Worth = unknown_worth
) -> SearchDefaults | None:
    """Return the first entry that covers a budget; `None` if there are no entries."""
    return next((entry for entry in entries if entry.covers(budget, worth)), None)


def toml_of(entries: Sequence[SearchDefaults]) -> str:
    """Write search defaults as the TOML file that the setting `search_defaults` reads."""
    tables = []
    for entry in entries:
        fields = {name: value for name, value in entry.model_dump().items() if value}
        tables.append(
            "\n".join(["[[search]]", *(f"{name} = {toml_value(value)}" for name, value in fields.items())])
        )
    return "\n\n".join(tables) + "\n"


def toml_value(value: Any) -> str:
    """Write a value that JSON has too."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {toml_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value)
