"""The search space: which parameters are tuned, in which ranges. Declared once, for all algorithms.

`ramify.search.params` knows which parameters mean anything under an algorithm: it refuses the others. The ranges are
narrower than the bounds there: they surround the values that the shipped configuration was tuned to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import BaseTrial

from ramify.evaluation.methods import Method
from ramify.search.params import PARAMS, ParamError, search_params
from ramify.search.records import Sampling

ALGORITHM = "algorithm"
"""The name under which a trial holds its algorithm, if its arm has several."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter of a request: a range of numbers, or choices."""

    name: str
    """`search.…` or `sampling.…`, as in a request."""
    low: float = 0.0
    high: float = 0.0
    """Inclusive."""
    log: bool = False
    """Drawn evenly in the logarithm."""
    choices: tuple[str | bool, ...] = ()
    """In place of a range."""
    optional: bool = False
    """May be left out, which means something of its own."""
    beside: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Search parameters that come before it, and their values with which alone it has an effect; `None`: not given."""

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    @property
    def field(self) -> str:
        return self.name.partition(".")[2]

    @property
    def whole(self) -> bool:
        """True if its values are integers."""
        return self.group == "search" and PARAMS[self.field][1] is int

    @property
    def described(self) -> str:
        """Name and values, for the settings of a run."""
        values = list(self.choices) if self.choices else [self.low, self.high, *(["log"] if self.log else [])]
        return f"{self.name} {values}{' or none' if self.optional else ''}"

    def fits(self, search: Mapping[str, Any]) -> bool:
        """Tell whether it has an effect beside these search parameters."""
        return all(search.get(name) in values for name, values in self.beside.items())

    def applies(self, algorithm: str) -> bool:
        """Tell whether it can be given to an algorithm, with the algorithm's other defaults."""
        if self.group == "sampling":
            return True
        if self.field == "answer" and search_params(algorithm).answer == "majority":
            return False  # another rule would make it another method
        given = {name: values[0] for name, values in self.beside.items()}
        given[self.field] = self.choices[-1] if self.choices else self._number(self.low)
        try:
            search_params(algorithm, **given)
        except ParamError:
            return False
        return True

    def suggest(self, trial: BaseTrial) -> Any:
        """Return the value that a trial has; `None`: it is left out."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.optional and not trial.suggest_categorical(self._given, (False, True)):
            return None
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return self._number(trial.suggest_float(self.name, self.low, self.high, log=self.log))

    def plain(self, algorithm: str) -> Any:
        """Return the value with which a trial does as the algorithm does by itself; `None`: it is left out."""
        return getattr(search_params(algorithm) if self.group == "search" else Sampling(), self.field)

    def having(self, value: Any) -> dict[str, Any]:
        """Return what a trial has that takes a value; `None`: it is left out."""
        if not self.optional:
            return {self.name: value}
        return {self._given: False} if value is None else {self._given: True, self.name: value}

    @property
    def _given(self) -> str:
        return f"{self.name} given"

    def _number(self, value: float) -> float:
        """Round to three digits, for people who read it."""
        return int(value) if self.whole else float(f"{value:.3g}")


DIMENSIONS = (
    Dimension("sampling.temperature", 0.1, 1.3),
    Dimension("search.answer", choices=("orm_max", "orm_vote")),
    Dimension("search.parallel", 1, 16, log=True),
    Dimension("search.width", 1, 8, log=True),
    Dimension("search.kappa", 0.05, 10, log=True),
    Dimension("search.kappa_growth", 1.2, 6, log=True, optional=True),
    Dimension("search.replacement", choices=(True, False)),
    Dimension("sampling.top_p", 0.8, 1.0, beside={"replacement": (True, None)}),
    Dimension("search.abandon", choices=(False, True)),
    Dimension("search.abandon_below", 0.02, 1, log=True, beside={"abandon": (True,)}),
    Dimension("search.considered", 2, 16, log=True),
    Dimension("search.c_scale", 0.1, 10, log=True),
    Dimension("search.beam_width", 2, 16, log=True),
    Dimension("search.threshold", 0.0, 0.6),
)

_PATHS_GIVEN_UP: Mapping[str, Any] = {
    "sampling.temperature": 0.4,
    "search.parallel": 4,
    "search.width": 1,
    "search.kappa": 1.0,
    "search.kappa_growth": 3.2,
    "search.replacement": False,
    "search.abandon": True,
}
KNOWN = {
    "mcts": tuple(
        {**_PATHS_GIVEN_UP, "search.answer": rule, "search.abandon_below": share}
        for rule in ("orm_max", "orm_vote")
        for share in (1.0, 0.05)
    )
}
"""Settings to begin with, by algorithm: paths given up at the full hurdle, as the shipped release has it, and at little
of it, as may suit values that err on whole problems; the best judged answer and the one voted for, as may suit a judge
that errs."""


def dimensions(algorithm: str) -> list[Dimension]:
    """Return the parameters that are tuned for an algorithm."""
    return [dimension for dimension in DIMENSIONS if dimension.applies(algorithm)]


def suggest(trial: BaseTrial, name: str, algorithms: Sequence[str]) -> Method:
    """Return the method that a trial stands for, under a name. algorithms: those of its arm."""
    algorithm = algorithms[0]
    if len(algorithms) > 1:
        algorithm = trial.suggest_categorical(ALGORITHM, algorithms)
    groups: dict[str, dict[str, Any]] = {"search": {}, "sampling": {}}
    for dimension in dimensions(algorithm):
        if not dimension.fits(groups["search"]):
            continue
        if (value := dimension.suggest(trial)) is not None:
            groups[dimension.group][dimension.field] = value
    answer = groups["search"].pop("answer", search_params(algorithm).answer)
    return Method(name, algorithm, answer, groups["search"], groups["sampling"])


def starts(algorithms: Sequence[str]) -> list[dict[str, Any]]:
    """Return the trials to begin with: each algorithm as it is by itself, so that no study ends below that, and then
    `KNOWN`."""
    plain: list[tuple[str, Mapping[str, Any]]] = [(algorithm, {}) for algorithm in algorithms]
    known = [(algorithm, one) for algorithm in algorithms for one in KNOWN.get(algorithm, ())]
    return [_start(algorithm, settings, algorithms) for algorithm, settings in [*plain, *known]]


def _start(algorithm: str, settings: Mapping[str, Any], algorithms: Sequence[str]) -> dict[str, Any]:
    chosen = {ALGORITHM: algorithm} if len(algorithms) > 1 else {}
    search: dict[str, Any] = {}
    for dimension in dimensions(algorithm):
        if dimension.fits(search):
            value = settings.get(dimension.name, dimension.plain(algorithm))
            chosen |= dimension.having(value)
            search |= {dimension.field: value} if dimension.group == "search" else {}
    return chosen
