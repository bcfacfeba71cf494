"""Methods to compare: named, frozen configurations of a search.

Two methods that grow the same tree and differ only in how they choose from it share one run: best-of-N and
self-consistency at equal tokens are two readings of the same draws. A flat method runs once, at the largest number of
tokens, and is read off at each smaller one; a tree has a run for each budget (`Method.reads_off`). On the clock
nothing is read off, since a tree does not say when its answers landed, and only methods that ask the engines for the
same work share a run: self-consistency needs no judgements.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from ramify.evaluation.budgets import Budget, Unit
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import ParamError, search_params
from ramify.search.records import Action, AnswerRule, BudgetLimits, Sampling, SearchParams
from ramify.settings import BadSettings

SHIPPED = "methods.toml"
TUNABLE = ("search", "sampling")
"""The groups of a method that its table `tuned` may change."""
ANY = Budget("tokens", 1)
"""A budget, for what does not depend on it."""


@dataclass(frozen=True, slots=True)
class Method:
    """One line of the comparison."""

    name: str
    algorithm: str | None
    """`None`: the search that a request gets which names none, as the release or the server has it."""
    answer: AnswerRule | None = "orm_vote"
    """`None`: the rule that the search itself answered by."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Search parameters that differ from the algorithm's defaults; keys of `SearchParams`, `action` as a table."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Sampling parameters that differ from the release's; keys of `Sampling`."""
    simulations: int | None = None
    """Cap on simulations, whatever the token budget: 1 with temperature 0 is greedy decoding. `None`: none."""

    @property
    def flat(self) -> bool:
        """True if it only draws complete answers from the prompt."""
        return self.algorithm is not None and ALGORITHMS[self.algorithm].flat

    @property
    def reads_off(self) -> bool:
        """True if it does the same with its first b tokens under every budget of at least b.

        The algorithm must say so of itself. `most_visited` needs the visits as they stood at b, and an early stop
        ends the search by itself, so neither reads off; nor does a search whose algorithm may be another at b.
        """
        if self.algorithm is None:
            return False
        params = self.params(ANY)
        same = ALGORITHMS[self.algorithm].reads_off(params)
        return same and params.early_stop == "off" and self.answer != "most_visited"

    @property
    def bare(self) -> bool:
        """True if whoever searches chooses the algorithm. All others have nothing of a release's search defaults."""
        return self.algorithm is None

    def request(self, budget: Budget) -> dict[str, Any]:
        """Return the `search` object of a request with this budget.

        A flat method asks for best-of-N. Of tokens it asks with scores, whichever rule will read its draws; on the
        clock it asks for scores only if its own rule needs them.
        """
        limits = budget.limits() | ({} if self.simulations is None else {"simulations": self.simulations})
        if self.algorithm is None:
            return {**self.search, "budget": limits}
        scored = self.flat and (budget.unit == "tokens" or self.answer != "majority")
        return {
            **self.search,
            "algorithm": "best_of_n" if self.flat else self.algorithm,
            "answer": "orm_vote" if scored else self.answer,
            "budget": limits,
        }

    def params(self, budget: Budget) -> SearchParams:
        """Return the core's parameters, before a release's own defaults. Raises `BadSettings`."""
        given = self.request(budget)
        try:
            given["budget"] = BudgetLimits(**given["budget"])
            if "action" in given:
                given["action"] = Action(**{k: _tuple(v) for k, v in given["action"].items()})
            return search_params(**given)
        except (ParamError, TypeError) as error:
            raise BadSettings(f"method {self.name!r}: {error}") from error

    def tree_key(self, unit: Unit) -> str:
        """A key that is equal for two methods that grow the same tree under budgets of this unit, so that one run
        serves both."""
        key = asdict(self)
        del key["name"]
        key["reads_off"] = self.reads_off
        if self.algorithm is not None and self.params(ANY).early_stop == "off":
            del key["answer"]
        if self.flat:
            key["algorithm"] = "flat"
            key["judged"] = unit == "tokens" or self.answer != "majority"
        return json.dumps(key, sort_keys=True)


DEFAULT = Method("default", None, None)
"""A bare search: nothing is said but the budget."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def load_methods(
    path: Path | None = None, names: Sequence[str] | None = None, *, tuned: bool = True
) -> list[Method]:
    """Read the methods of a TOML file (the shipped, frozen one by default), or those named, in the order named.

    names: an algorithm's name that is no method's stands for the algorithm with its own defaults, and `default` for a
    search with nothing but its budget. tuned: apply the
    methods' tables `tuned`; those of the shipped file are the demo release's, and mean nothing to any other.
    Raises `BadSettings` for an unknown name, an unknown key, or a parameter out of range.
    """
    source = path.read_text() if path else files("ramify.evaluation").joinpath(SHIPPED).read_text()
    try:
        tables = tomllib.loads(source).get("method", [])
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{path or SHIPPED} is not TOML: {error}") from error
    if not tables:
        raise BadSettings(f"{path or SHIPPED} has no [[method]] table")
    methods = {m.name: m for m in (_method(table, tuned) for table in tables)}
    if len(methods) != len(tables):
        raise BadSettings(f"{path or SHIPPED} names two methods alike")
    if names is None:
        return list(methods.values())
    plain = {a: Method(a, a, search_params(a).answer) for a in ALGORITHMS}
    known = {DEFAULT.name: DEFAULT, **plain, **methods}
    return [known[name] if name in known else _unknown("method", name, known) for name in names]


def _method(table: Mapping[str, Any], tuned: bool) -> Method:
    table = _tuned(table, tuned)
    known = {f.name for f in fields(Method)}
    for key in table:
        if key not in known:
            _unknown("key of a method", key, known)
    for key in ("name", "algorithm"):
        if not isinstance(table.get(key), str):
            raise BadSettings(f"a method needs a {key!r}: {dict(table)}")
    if table["algorithm"] not in ALGORITHMS:
        _unknown("algorithm", table["algorithm"], ALGORITHMS)
    if (answer := table.get("answer", "orm_vote")) not in get_args(AnswerRule):
        _unknown("answer rule", answer, get_args(AnswerRule))
    method = Method(**table)
    check(method)
    return method


def _tuned(table: Mapping[str, Any], apply: bool) -> dict[str, Any]:
    """Return a method's table with its `tuned` values over its own, or without them."""
    rest = dict(table)
    tuned = rest.pop("tuned", {})
    for group in tuned:
        if group not in TUNABLE:
            _unknown("key of a method's tuned", group, TUNABLE)
        if apply:
            rest[group] = {**rest.get(group, {}), **tuned[group]}
    return rest


def check(method: Method) -> None:
    """Raise `BadSettings` if the method could run under no budget."""
    if method.algorithm is not None:  # else whoever searches knows what can be asked
        method.params(ANY)
    for key in method.sampling:
        if key not in {f.name for f in fields(Sampling)}:
            _unknown("sampling parameter", key, [f.name for f in fields(Sampling)])


def _unknown(what: str, given: Any, known: Iterable[str]) -> Any:
    known = sorted(known)
    close = get_close_matches(str(given), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise BadSettings(f"no {what} {given!r}: {hint}")


def override(methods: Sequence[Method], settings: Sequence[str]) -> list[Method]:
    """Return the methods with `--set` changes such as `search.kappa=3` or `mcts.search.kappa=3`.

    Without a method's name, `search.*` changes the trees (a flat method has nothing to tune, and `default` is whatever
    it is), anything else all.
    """
    changed = list(methods)
    for setting in settings:
        wanted, key, text = _split(setting, methods)
        value = parse_value(text)
        changed = [_change(m, key, value) if _meant(m, wanted, key) else m for m in changed]
    return changed


def sweep(methods: Sequence[Method], settings: Sequence[str]) -> list[Method]:
    """Copy each method that a `--sweep` such as `search.kappa=1,2,4` touches, once for every combination of values.

    The copies are named `mcts[kappa=1]`, …; the other methods stay as they are.
    """
    parsed = [(*_split(s, methods)[:2], _split(s, methods)[2].split(",")) for s in settings]
    swept: list[Method] = []
    for method in methods:
        mine = [(key, values) for wanted, key, values in parsed if _meant(method, wanted, key)]
        for combination in itertools.product(*(values for _, values in mine)):
            copy = method
            for (key, _), text in zip(mine, combination, strict=True):
                copy = _change(copy, key, parse_value(text))
            label = ",".join(f"{k.split('.')[-1]}={v}" for (k, _), v in zip(mine, combination, strict=True))
            swept.append(replace(copy, name=f"{method.name}[{label}]" if label else method.name))
    return swept


def parse_value(text: str) -> Any:
    """Read a TOML or JSON scalar or list; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _split(setting: str, methods: Sequence[Method]) -> tuple[str | None, str, str]:
    path, equals, text = setting.partition("=")
    if not equals:
        raise BadSettings(f"{setting!r} has no '=': write it like search.kappa=3")
    first, _, rest = path.strip().partition(".")
    names = {m.name for m in methods}
    if first in names and rest:
        return first, rest, text.strip()
    if first not in {f.name for f in fields(Method)}:
        _unknown("method or key", first, [*names, "search.…", "sampling.…", "answer", "simulations"])
    return None, path.strip(), text.strip()


def _meant(method: Method, wanted: str | None, key: str) -> bool:
    if wanted is not None:
        return method.name == wanted
    fixed = method.flat or method.algorithm is None
    return not (fixed and (key.startswith("search.") or key == "answer"))


def _change(method: Method, key: str, value: Any) -> Method:
    group, *inner = key.split(".")
    changes: dict[str, Any]
    if group in ("search", "sampling") and inner:
        changes = {group: _put(getattr(method, group), inner, value)}
    elif group in ("algorithm", "answer", "simulations") and not inner:
        changes = {group: value}
    else:
        raise BadSettings(
            f"{key!r} cannot be set: there are search.*, sampling.*, answer, algorithm, simulations"
        )
    changed = replace(method, **changes)
    check(changed)
    return changed


def _put(table: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**table, first: _put(table.get(first, {}), rest, value) if rest else value}
