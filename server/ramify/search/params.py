"""Build search parameters, and refuse by name those that are out of bounds or would have no effect.

`records` declares each parameter once, and each algorithm's class says which it has. Everything that is known of them
is derived from these: by the checks here, by the HTTP body (`api.wire_search`) and by docs/search.md.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import Field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ramify.search.algorithms import ALGORITHMS
from ramify.search.cutting import MAX_STEP_STOPS, MAX_STOP_CHARS, MAX_STOPS
from ramify.search.records import OWN_POLICY, Action, BudgetLimits, Sampling, SearchParams

MOST_POLICIES = 8
"""Policies that one search may name."""
POLICY_NAME = r"[a-z][a-z0-9_]{0,31}"
"""The form of their names."""
MAX_TEMPLATE = 10_000
"""Characters of the words in which a better answer is asked for."""


class ParamError(ValueError):
    """A parameter that is unknown, out of bounds or without effect. `field` is its path below `search`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def _declared() -> Iterator[tuple[str, tuple[Field[Any], Any]]]:
    for prefix, record in (("", SearchParams), ("action.", Action), ("budget.", BudgetLimits)):
        hints = get_type_hints(record)
        yield from ((prefix + field.name, (field, hints[field.name])) for field in fields(record))


PARAMS = dict(_declared())
"""Field and type of every parameter by its path below `search`, those of `action` and `budget` included."""


def bounds(name: str) -> tuple[float, float] | None:
    """Return the inclusive bounds of a parameter; `None` if it is no number."""
    limits: tuple[float, float] | None = PARAMS[name][0].metadata.get("bounds")
    return limits


def choices(name: str) -> tuple[str, ...]:
    """Return the values that a parameter may have, if it is one of several words; else none."""
    if name == "algorithm":
        return tuple(ALGORITHMS)
    kind = PARAMS[name][1]
    return get_args(kind) if get_origin(kind) is Literal else ()


def search_params(algorithm: str = "mcts", **given: Any) -> SearchParams:
    """Parameters of `algorithm` with its own defaults under `given` (fields of `SearchParams`).

    Raises `ParamError` for an unknown algorithm or field, one out of bounds, and one without effect here."""
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ParamError("algorithm", f"{_short(algorithm)} is none of {known}{_near(algorithm)}")
    kind = ALGORITHMS[algorithm]
    for name in given:
        if name not in PARAMS or "." in name:
            raise ParamError(name, "no such search parameter")
        if name not in kind.parameters:
            raise ParamError(name, f"has no effect with algorithm {algorithm!r}")
    params = replace(SearchParams(algorithm=algorithm), **{**kind.defaults, **given})
    if "early_stop" not in given and params.grader == "verifier":
        # A search that was told that an answer is right has nothing left to look for.
        params = replace(params, early_stop="verified")
    if "answer" not in given and params.grader == "confidence" and params.answer == "orm_max":
        # The answer that the policy is surest of is often wrong; votes weighted by it are at least a majority's.
        params = replace(params, answer="orm_vote")
    for name in given:
        _check_needs(name, params)
    _check_values(params)
    _check_combinations(params)
    return params


def over_defaults(
    algorithm: str, defaults: Mapping[str, Any], given: Mapping[str, Any], *, judged: bool
) -> tuple[SearchParams, dict[str, Any]]:
    """Return the parameters `given`, with `defaults` if they are silent, and the defaults that were used. judged: there
    is a model that judges; else `no_model_defaults` hold below both.

    A default that has no effect beside what is given gives way to it, as `abandon` does to `expand: step`; so does one
    that needs a model if there is none. Raises `ParamError` as `search_params` does, and for what is given and needs a
    model."""
    used = {name: value for name, value in defaults.items() if name not in given}
    if "grader" in given:
        used.pop("early_stop", None)  # it was chosen for another judge
    while True:
        unsaid = {} if judged else no_model_defaults(algorithm, {**used, **given})
        try:
            params = search_params(algorithm, **{**unsaid, **used, **given})
            if not judged:
                _check_no_model(params)
            return params, used
        except ParamError as error:
            if error.field not in used:
                raise
            del used[error.field]


def default_algorithm(given: Mapping[str, Any], *, judged: bool) -> str:
    """Return the algorithm of a search whose parameters `given` name none. judged: a model judges unless they say
    otherwise.

    If the policy's confidence judges, it is `best_of_n`, whose votes are of independent draws: at least a majority's.
    The votes of a tree count what lies below its favourite steps more often than the policy would write it, which only
    a judge that knows right from wrong makes up for. (Measured 2026-11-28: docs/evaluation.md.) Parameters and answer
    rules that only trees have ask for a tree all the same."""
    flat = "best_of_n"
    kind = ALGORITHMS[flat]
    confident = given.get("grader", "model" if judged else "confidence") == "confidence"
    if confident and kind.parameters.issuperset(given) and given.get("answer") in (None, *kind.answer_rules):
        return flat
    return SearchParams().algorithm


def no_model_defaults(algorithm: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of a search in which no model judges, beside the parameters `given`: the policy's confidence
    judges. If `given` names the verifier, unfinished answers have no value, and a rollout says what a step is worth."""
    if "grader" not in given:
        return {"grader": "confidence"}
    kind = ALGORITHMS.get(algorithm)
    if given["grader"] != "verifier" or kind is None or "leaf" not in kind.parameters:
        return {}
    expand = given.get("expand", kind.defaults.get("expand", SearchParams().expand))
    return {"leaf": "rollout"} if expand == "step" else {}


def _check_no_model(params: SearchParams) -> None:
    """Raise `ParamError` if a search needs the values of a model."""
    needs = "needs a value model or a scorer, and there is none"
    kind = ALGORITHMS[params.algorithm]
    if params.grader in ("model", "mixed") and not (kind.flat and params.answer == "majority"):
        raise ParamError(
            "grader",
            f"{params.grader!r} {needs}: leave it out for the policy's own confidence, or ask for 'verifier'",
        )
    if params.grader != "verifier":
        return
    if "leaf" in kind.parameters and params.expand == "step" and params.leaf != "rollout":
        raise ParamError("leaf", f"{params.leaf!r} {needs}: ask for 'rollout', or for grader 'confidence'")
    if params.abandon:
        raise ParamError("abandon", f"{needs}: leave it out, or ask for grader 'confidence'")


def sampling_params(**given: Any) -> Sampling:
    """Sampling with its defaults under `given` (fields of `Sampling`).

    Raises `ParamError` for an unknown field and one out of bounds."""
    known = {field.name: field for field in fields(Sampling)}
    kinds = get_type_hints(Sampling)
    for name, value in given.items():
        if name not in known:
            raise ParamError(f"sampling.{name}", "no such sampling parameter")
        if limits := known[name].metadata.get("bounds"):
            _check_number(f"sampling.{name}", value, limits, whole=kinds[name] is int)
    stop = tuple(given.get("stop", ()))
    _check_stops("sampling.stop", stop, MAX_STOPS)
    return Sampling(**{**given, "stop": stop})


def _check_needs(name: str, params: SearchParams) -> None:
    """Raise `ParamError` if a parameter has no effect beside the others."""
    kind = ALGORITHMS[params.algorithm]
    needs = kind.needs.get(name) or PARAMS[name][0].metadata.get("needs")
    if needs and needs[0] in kind.parameters and getattr(params, needs[0]) not in needs[1]:
        wanted = " or ".join(repr(v) if isinstance(v, str) else json.dumps(v) for v in needs[1])
        raise ParamError(name, f"has no effect unless {needs[0]} is {wanted}")
    if name == "dirichlet_alpha" and not params.dirichlet_fraction:
        raise ParamError(name, "has no effect unless dirichlet_fraction is above 0")
    if name == "prior" and params.action.kind == "token":
        raise ParamError(name, "has no effect on tokens, whose exact probabilities are the prior")


def without_cuts(params: SearchParams, sampling: Sampling) -> SearchParams:
    """Return them with a `max_depth` that cuts no answer short: a step may be one token, a chunk has a fixed size. (A
    whole answer is never cut.)"""
    if "max_depth" not in ALGORITHMS[params.algorithm].parameters or params.action.kind == "refine":
        return params
    size = params.action.max_tokens if params.action.kind == "chunk" else 1
    _, deepest = bounds("max_depth") or (0, math.inf)
    return replace(params, max_depth=int(min(deepest, math.ceil(sampling.max_tokens / size))))


def draws_vary(params: SearchParams, sampling: Sampling) -> bool:
    """Tell whether drawing again at a node can bring anything new: greedy draws and enumerated tokens stay the same."""
    return params.action.kind != "token" and sampling.temperature > 0 and sampling.top_k != 1


def repeats(params: SearchParams) -> bool:
    """Tell whether the search would draw the same words twice from a policy whose draws at one node are all the same.
    Enumerated tokens always differ."""
    draws = ALGORITHMS[params.algorithm].most_draws(params)
    if params.expand == "path":
        return params.budget.simulations > 1 or draws > 1
    return params.action.kind != "token" and (draws > 1 or params.widen or params.leaf != "value")


def check_sampling(params: SearchParams, sampling: Sampling) -> None:
    """Raise `ParamError` if the budget cannot pay for even one complete answer, or if all draws would be the same."""
    _check_stops("sampling.stop", sampling.stop, MAX_STOPS)
    for name, value in (("temperature", 0), ("top_k", 1)):
        if getattr(sampling, name) == value and repeats(params):
            raise ParamError(
                f"sampling.{name}",
                f"is {value}, at which all draws from one place are the same and a search finds nothing new. Leave it "
                "out, or ask for one greedy answer (algorithm best_of_n, budget.simulations 1) or for token actions",
            )
    tokens = params.budget.tokens
    if tokens is not None and tokens < sampling.max_tokens:
        raise ParamError(
            "budget.tokens",
            f"is {tokens}, below sampling.max_tokens ({sampling.max_tokens}): not one answer could be completed",
        )


def check_policies(params: SearchParams, known: Collection[str], prompts: Collection[str]) -> None:
    """Raise `ParamError` if a search names a policy that is not among those `known`, or if it cannot be made with what
    it names. prompts: the policies that have a prompt of their own."""
    if foreign := [name for name in params.policies or (OWN_POLICY,) if name not in known]:
        raise ParamError("policies", f"{_short(foreign[0])} is none of {', '.join(known)}")
    if len(params.policies) > 1 and params.action.kind == "token":
        raise ParamError(
            "policies",
            "several mean nothing with actions of kind 'token', whose priors are one policy's exact probabilities",
        )
    if params.action.kind == "refine" and (apart := [name for name in params.policies if name in prompts]):
        raise ParamError(
            "policies",
            f"{apart[0]!r} has a prompt of its own, in which action 'refine' asks for no better answer",
        )


def _check_names(params: SearchParams) -> None:
    """Raise `ParamError` for policies that are too many, named twice, or by no name, and for priors that compare the
    log-probabilities of different policies."""
    names = params.policies
    if len(names) > MOST_POLICIES or len(set(names)) < len(names):
        raise ParamError("policies", f"has {len(names)} names; at most {MOST_POLICIES}, each once")
    if strange := [name for name in names if not re.fullmatch(POLICY_NAME, name)]:
        raise ParamError("policies", f"{_short(strange[0])} is no name: {POLICY_NAME}")
    kind = ALGORITHMS[params.algorithm]
    if len(names) > 1 and "prior" in kind.parameters and params.prior != "count":
        raise ParamError(
            "prior", f"{params.prior!r} compares log-probabilities, and those of several policies differ"
        )


def _check_values(params: SearchParams) -> None:
    for name, (_, kind) in PARAMS.items():
        group, _, field = name.rpartition(".")
        value = getattr(getattr(params, group) if group else params, field)
        if choices(name) and value not in choices(name):
            raise ParamError(name, f"{_short(value)} is none of {', '.join(choices(name))}")
        if kind is bool and not isinstance(value, bool):
            raise ParamError(name, f"{_short(value)} is neither true nor false")
        if (limits := bounds(name)) and value is not None:
            _check_number(name, value, limits, whole=kind in (int, int | None))
    if params.action.kind == "step" and not params.action.stop:
        raise ParamError("action.stop", "a step needs at least one delimiter")
    _check_stops("action.stop", params.action.stop, MAX_STEP_STOPS)


def _check_number(name: str, value: object, limits: tuple[float, float], *, whole: bool) -> None:
    low, high = limits
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):  # type: ignore[operator]  # (nan is in no range)
        kind = "an integer" if whole else "a number"
        raise ParamError(name, f"{_short(value)} is not {kind} from {low:g} to {high:g}")


def _check_stops(name: str, stops: tuple[str, ...], most: int) -> None:
    if len(stops) > most:
        raise ParamError(name, f"has {len(stops)} strings; at most {most}")
    if any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise ParamError(name, f"each string must have 1 to {MAX_STOP_CHARS} characters")


def _check_combinations(params: SearchParams) -> None:
    kind = ALGORITHMS[params.algorithm]
    if params.expand == "path" and params.action.kind == "token" and "action" in kind.parameters:
        raise ParamError(
            "action.kind", "'token' enumerates next tokens and cannot write whole paths: use expand 'step'"
        )
    _check_names(params)
    if params.action.kind == "refine":
        _check_refinement(params)
    elif params.action.template:
        raise ParamError("action.template", f"has no effect on actions of kind {params.action.kind!r}")
    if params.abandon and params.expand != "path":
        raise ParamError("abandon", "has no effect unless expand is 'path'")
    if not params.replacement:
        _check_replacement(params)
    if params.widen and params.action.kind == "token":
        raise ParamError(
            "widen", "the likeliest tokens are the same every time: there is nothing to draw afresh"
        )
    if params.early_stop == "verified" and params.grader != "verifier":
        raise ParamError("early_stop", "'verified' needs grader 'verifier'")
    if params.early_stop in ("unbeatable", "posterior") and params.answer not in ("majority", "orm_vote"):
        raise ParamError(
            "early_stop",
            f"{params.early_stop!r} needs an answer rule that counts votes: majority or orm_vote",
        )
    if params.answer not in kind.answer_rules:
        raise ParamError("answer", f"{params.answer!r} means nothing with algorithm {params.algorithm!r}")


def _check_replacement(params: SearchParams) -> None:
    """Raise `ParamError` where draws without replacement would change nothing, or what is counted."""
    if params.expand == "step" and not params.widen:
        raise ParamError("replacement", "has no effect unless expand is 'path' or widen is true")
    for name, counting in (("answer", ("majority",)), ("early_stop", ("unbeatable", "posterior"))):
        if (value := getattr(params, name)) in counting:
            raise ParamError(
                "replacement",
                f"must be true with {name} {value!r}: it counts how often an answer is drawn",
            )


def _check_refinement(params: SearchParams) -> None:
    """Raise `ParamError` for what means nothing if a node is a whole answer."""
    if not ALGORITHMS[params.algorithm].refines:
        able = ", ".join(name for name, kind in ALGORITHMS.items() if kind.refines)
        raise ParamError("action.kind", f"'refine' needs an algorithm that refines answers: {able}")
    if len(params.action.template) > MAX_TEMPLATE:
        raise ParamError(
            "action.template", f"has {len(params.action.template)} characters; at most {MAX_TEMPLATE}"
        )
    faults = {
        "expand": params.expand != "path" and "must be 'path': a whole answer is drawn at once",
        "commit": params.commit != "root" and "must be 'root': there is no step to commit to",
        "abandon": params.abandon and "has no effect: a whole answer is judged only at its end",
        "kappa_growth": params.kappa_growth is not None
        and "has no effect: there are no steps left to an end",
        "answer": params.answer == "most_visited"
        and "'most_visited' needs steps: a refined answer ends none",
    }
    for name, fault in faults.items():
        if fault:
            raise ParamError(name, f"{fault} (action 'refine')")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _near(name: str) -> str:
    close = difflib.get_close_matches(str(name)[:64], ALGORITHMS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
