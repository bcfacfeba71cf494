"""The scorers of a server, by name: what the settings say of each is read and checked, then put on its engine.

One without a kind is what the release or the policy judges with by itself: its value model, its value head, or what an
extension makes of either. Alone, a scorer has no name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ramify.engine_options import ScorerOptions
from ramify.engines.config import EngineConfig, Serving
from ramify.engines.errors import EngineStartFailed
from ramify.engines.judges import JudgeModel, Question, read_judge, read_question, read_value
from ramify.engines.limiter import EngineLimiter
from ramify.engines.ports import Engine
from ramify.engines.remote import RemoteForm, RemoteScorer, read_remote
from ramify.engines.scorer import EngineScorer, PolicyJudge, TrunkScorer, VllmScorer
from ramify.engines.start import Role
from ramify.engines.tokenizer import Tokenizer
from ramify.search.protocols import Scorer
from ramify.search.scorers import NamedScorer, Scorers

Judge = JudgeModel | Question | RemoteForm


def read_judges(config: EngineConfig, policy: Tokenizer) -> dict[str, Judge]:
    """Read what judges, by the scorers' names; a value head is not among it. Raises `EngineStartFailed`."""
    judges: dict[str, Judge] = {}
    for name, options in config.scorers.items():
        try:
            judge = _read(options, config, policy)
        except EngineStartFailed as error:
            if not name:
                raise
            raise EngineStartFailed(f"scorers.{name}: {error}") from error
        if judge is not None:
            judges[name] = judge
        elif name and config.value_head is None and config.scorer is None:
            raise EngineStartFailed(
                f"scorers.{name} has no kind, so it is the value model or head of the release or policy, which has none"
            )
    return judges


def _read(options: ScorerOptions, config: EngineConfig, policy: Tokenizer) -> Judge | None:
    if options.kind == "http":
        return read_remote(options, policy)
    if options.model is not None:
        return read_judge(options, policy)
    if options.kind == "judge":
        return read_question(options, policy)
    return read_value(config.value, policy) if config.value is not None else None


def role_of(name: str, options: ScorerOptions) -> Role:
    """Return the role of the engine in which a scorer's model runs."""
    return f"scorer_{name}" if name and options.kind is not None else "value"


class ScorerMaker:
    """Puts scorers on the engines that they need."""

    def __init__(
        self,
        config: EngineConfig,
        tokenizer: Tokenizer,
        engines: Mapping[Role, Engine],
        limiters: Mapping[Role, EngineLimiter],
        serving: Callable[[], Serving],
    ) -> None:
        """tokenizer: the policy's. serving: the release that the calling task leases, else the one served."""
        self._config, self._tokenizer = config, tokenizer
        self._engines, self._limiters, self._serving = engines, limiters, serving

    def own(self, judges: Mapping[str, Judge]) -> EngineScorer | None:
        """Return the scorer of what the release or the policy judges with by itself; `None` if that is nothing, or if
        the settings name others in its place."""
        for name, options in self._config.scorers.items():
            if options.kind is None and self._config.value_head is not None:
                policy, limiter = self._engines["policy"], self._limiters["policy"]
                return TrunkScorer(policy, limiter, self._serving, lambda: self._tokenizer.closing)
            if options.kind is None and isinstance(judge := judges.get(name), JudgeModel):
                return self._on_engine("value", judge, None)
        return None

    def all(self, judges: Mapping[str, Judge], own: EngineScorer | None) -> Scorers:
        """Return every scorer by its name. own: as `own` has made it."""
        named: dict[str, NamedScorer] = {}
        for name, options in self._config.scorers.items():
            scorer = self._settings_scorer(name, options, judges) if options.kind else self._extended(own)
            if scorer is not None:
                named[name] = NamedScorer(scorer, options.weight, options.prune_below)
        return Scorers(named)

    def _extended(self, own: EngineScorer | None) -> Scorer | None:
        return own if self._config.scorer is None else self._config.scorer(self._tokenizer, own)

    def _settings_scorer(self, name: str, options: ScorerOptions, judges: Mapping[str, Judge]) -> Scorer:
        judge, calibration = judges[name], (options.a, options.b)
        if isinstance(judge, RemoteForm):
            return RemoteScorer(options, judge, lambda: self._serving().release)
        if isinstance(judge, Question):
            policy, limiter = self._engines["policy"], self._limiters["policy"]
            return PolicyJudge(policy, limiter, self._serving, judge, calibration)
        return self._on_engine(role_of(name, options), judge, calibration)

    def _on_engine(
        self, role: Role, judge: JudgeModel, calibration: tuple[float, float] | None
    ) -> VllmScorer:
        engine, limiter = self._engines[role], self._limiters[role]
        return VllmScorer(engine, limiter, self._serving, judge.write, judge.reading, calibration)
