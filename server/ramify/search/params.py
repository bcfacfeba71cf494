"""Build search parameters: each algorithm's defaults, which parameters it has, and their bounds.

A parameter that the chosen algorithm would not use is an error and never dropped in silence.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import replace
from typing import Any, get_args

from ramify.search import records
from ramify.search.cutting import MAX_STEP_STOPS, MAX_STOP_CHARS, MAX_STOPS
from ramify.search.records import Sampling, SearchParams


class ParamError(ValueError):
    """A parameter that is unknown, out of bounds or without effect. `field` is its path below `search`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


BOUNDS: dict[str, tuple[float, float]] = {
    "width": (1, 64),
    "parallel": (1, 256),
    "max_depth": (1, 4096),
    "prior_temperature": (0.01, 100),
    "rollout_weight": (0, 1),
    "early_stop_threshold": (0.5, 1),
    "c_init": (0, 100),
    "c_base": (1, 1e9),
    "kappa": (0.01, 1000),
    "kappa_growth": (1.01, 100),
    "tau": (0, 100),
    "dirichlet_alpha": (0.001, 100),
    "dirichlet_fraction": (0, 1),
    "considered": (1, 256),
    "c_visit": (0, 10_000),
    "c_scale": (0, 100),
    "gumbel_scale": (0, 100),
    "beam_width": (1, 256),
    "threshold": (0, 1),
    "action.max_tokens": (1, 4096),
    "budget.simulations": (1, records.MOST_SIMULATIONS),
    "budget.tokens": (1, 10_000_000),
    "budget.seconds": (0.001, 86_400),
    "budget.nodes": (1, 1_000_000),
}
"""Inclusive."""

CHOICES: dict[str, tuple[str, ...]] = {
    "algorithm": get_args(records.Algorithm),
    "expand": get_args(records.Expand),
    "select": get_args(records.Select),
    "prior": get_args(records.Prior),
    "leaf": get_args(records.Leaf),
    "grader": get_args(records.Grader),
    "answer": get_args(records.AnswerRule),
    "schedule": get_args(records.Schedule),
    "commit": get_args(records.Commit),
    "early_stop": get_args(records.EarlyStop),
    "action.kind": get_args(records.ActionKind),
}

FLAT = ("best_of_n", "self_consistency")

_FLAT = {
    "algorithm",
    "parallel",
    "grader",
    "answer",
    "schedule",
    "early_stop",
    "early_stop_threshold",
    "budget",
}
_STEPS = _FLAT | {"action", "width", "max_depth"}
_PUCT = {"prior", "prior_temperature", "c_init", "c_base"}
_TREE = _STEPS | _PUCT | {"expand", "widen", "leaf", "rollout_weight"}

FIELDS: dict[str, frozenset[str]] = {
    "mcts": frozenset(
        _TREE
        | {"select", "kappa", "kappa_growth", "abandon"}
        | {"commit", "tau", "dirichlet_alpha", "dirichlet_fraction"}
    ),
    "gumbel": frozenset(
        (_TREE - {"c_init", "c_base"}) | {"considered", "c_visit", "c_scale", "gumbel_scale"}
    ),
    "rap": frozenset(_STEPS | _PUCT),
    "beam": frozenset(_STEPS | {"beam_width"}),
    "dvts": frozenset(_STEPS | {"beam_width"}),
    "dfs": frozenset(_STEPS | {"threshold"}),
    "particle": frozenset((_STEPS | {"beam_width"}) - {"width"}),
    "best_of_n": frozenset(_FLAT),
    "self_consistency": frozenset(_FLAT),
}
"""The parameters that each algorithm has."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "mcts": {},
    "gumbel": {},
    "rap": {"select": "puct", "expand": "step"},
    "beam": {"expand": "step"},
    "dvts": {"expand": "step"},
    "dfs": {"expand": "step", "parallel": 1},
    "particle": {"expand": "step", "beam_width": 16},
    "best_of_n": {"expand": "path", "answer": "orm_max", "max_depth": 1},
    "self_consistency": {"expand": "path", "answer": "majority", "max_depth": 1},
}
"""Where an algorithm's defaults differ from those of `SearchParams`."""

_ONLY_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "kappa": ("select", ("thompson",)),
    "kappa_growth": ("select", ("thompson",)),
    "abandon": ("select", ("thompson",)),
    "prior": ("select", ("puct",)),
    "c_init": ("select", ("puct",)),
    "c_base": ("select", ("puct",)),
    "dirichlet_fraction": ("select", ("puct",)),
    "dirichlet_alpha": ("select", ("puct",)),
    "tau": ("commit", ("step",)),
    "leaf": ("expand", ("step",)),
    "widen": ("expand", ("step",)),
    "rollout_weight": ("leaf", ("mixed",)),
    "prior_temperature": ("prior", ("mean_logprob", "sum_logprob")),
    "early_stop_threshold": ("early_stop", ("posterior",)),
}
"""Parameters that mean something only beside certain values of another."""


def search_params(algorithm: str = "mcts", **given: Any) -> SearchParams:
    """Parameters of `algorithm` with its own defaults under `given` (fields of `SearchParams`).

    Raises `ParamError` for an unknown algorithm or field, one out of bounds, and one without effect here."""
    if not isinstance(algorithm, str) or algorithm not in FIELDS:
        raise ParamError("algorithm", f"{_short(algorithm)} is none of {', '.join(FIELDS)}{_near(algorithm)}")
    known = {f for fields in FIELDS.values() for f in fields}
    for name in given:
        if name not in known:
            raise ParamError(name, "no such search parameter")
        if name not in FIELDS[algorithm]:
            raise ParamError(name, f"has no effect with algorithm {algorithm!r}")
    params = replace(SearchParams(algorithm=algorithm), **{**DEFAULTS[algorithm], **given})  # type: ignore[arg-type]
    if "early_stop" not in given and params.grader == "verifier":
        # A search that was told that an answer is right has nothing left to look for.
        params = replace(params, early_stop="verified")
    for name in given:
        if name in _ONLY_WITH and _ONLY_WITH[name][0] in FIELDS[algorithm]:
            other, values = _ONLY_WITH[name]
            if getattr(params, other) not in values:
                allowed = " or ".join(map(repr, values))
                raise ParamError(name, f"has no effect unless {other} is {allowed}")
    if "width" in given and algorithm == "gumbel" and params.expand == "path":
        raise ParamError(
            "width", "has no effect with algorithm 'gumbel' unless expand is 'step': see considered"
        )
    if "dirichlet_alpha" in given and not params.dirichlet_fraction:
        raise ParamError("dirichlet_alpha", "has no effect unless dirichlet_fraction is above 0")
    if "prior" in given and params.action.kind == "token":
        raise ParamError("prior", "has no effect on tokens, whose exact probabilities are the prior")
    _check_values(params)
    _check_combinations(params)
    return params


def without_cuts(params: SearchParams, sampling: Sampling) -> SearchParams:
    """The same, as deep as the longest answer can be: a step may be a single token, a chunk has all of its own."""
    if params.algorithm in FLAT:
        return params
    size = params.action.max_tokens if params.action.kind == "chunk" else 1
    deepest = BOUNDS["max_depth"][1]
    return replace(params, max_depth=int(min(deepest, math.ceil(sampling.max_tokens / size))))


def most_draws(params: SearchParams) -> int:
    """The most draws of one expansion."""
    if params.algorithm in FLAT:
        return 1
    if params.algorithm == "gumbel":
        return params.considered if params.expand == "path" else max(params.width, params.considered)
    if params.algorithm == "particle":
        return params.beam_width
    return params.width * (params.beam_width if params.algorithm == "dvts" else 1)


def repeats(params: SearchParams) -> bool:
    """Tell whether the search would ask a policy that always says the same for the same words twice. Enumerated
    tokens differ whatever the policy says."""
    if params.expand == "path":
        return params.budget.simulations > 1 or most_draws(params) > 1
    return params.action.kind != "token" and (
        most_draws(params) > 1 or params.widen or params.leaf != "value"
    )


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


def _check_values(params: SearchParams) -> None:
    values = {
        **{name: getattr(params, name) for name in (*BOUNDS, *CHOICES) if "." not in name},
        **{f"action.{k}": getattr(params.action, k) for k in ("kind", "max_tokens")},
        **{f"budget.{k}": getattr(params.budget, k) for k in ("simulations", "tokens", "seconds", "nodes")},
    }
    for name, value in values.items():
        if name in CHOICES and value not in CHOICES[name]:
            raise ParamError(name, f"{_short(value)} is none of {', '.join(CHOICES[name])}")
        if name in BOUNDS and value is not None:
            low, high = BOUNDS[name]
            if not (_is_number(value, name) and low <= value <= high):
                kind = "an integer" if name in _INTEGERS else "a number"
                raise ParamError(name, f"{_short(value)} is not {kind} from {low:g} to {high:g}")
    for name in ("widen", "abandon"):
        if not isinstance(value := getattr(params, name), bool):
            raise ParamError(name, f"{_short(value)} is neither true nor false")
    if params.action.kind == "step" and not params.action.stop:
        raise ParamError("action.stop", "a step needs at least one delimiter")
    _check_stops("action.stop", params.action.stop, MAX_STEP_STOPS)


def _check_stops(name: str, stops: tuple[str, ...], most: int) -> None:
    if len(stops) > most:
        raise ParamError(name, f"has {len(stops)} strings; at most {most}")
    if any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise ParamError(name, f"each string must have 1 to {MAX_STOP_CHARS} characters")


def _check_combinations(params: SearchParams) -> None:
    if params.expand == "path" and params.action.kind == "token" and params.algorithm not in FLAT:
        raise ParamError(
            "action.kind", "'token' enumerates next tokens and cannot write whole paths: use expand 'step'"
        )
    if params.abandon and params.expand != "path":
        raise ParamError("abandon", "has no effect unless expand is 'path'")
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
    if params.answer == "most_visited" and params.algorithm not in ("mcts", "gumbel", "rap"):
        raise ParamError("answer", f"'most_visited' means nothing with algorithm {params.algorithm!r}")


_INTEGERS = frozenset(
    {"width", "parallel", "max_depth", "considered", "beam_width", "action.max_tokens"}
    | {"budget.simulations", "budget.tokens", "budget.nodes"}
)


def _is_number(value: object, name: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) if name in _INTEGERS else math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _near(name: str) -> str:
    close = difflib.get_close_matches(str(name)[:64], FIELDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
