"""Turn a search's specification into a tree to grow and the task that judges it: fill in defaults, check limits.

A search that names no token budget gets the most that its other limits could cost, within the server's cap, so that
admission always knows what a running search may still spend.

What the request does not say is filled in from the search defaults of the release, if these name the algorithm that
searches; from the algorithm's own if they are silent too. So a request that names another algorithm than they do has
nothing of them: what was tuned for one means nothing to another.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ramify.engines import Serving
from ramify.rewards import registry
from ramify.rewards.errors import BadProblem, BadTask
from ramify.rewards.grading import BoundTask
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import (
    ParamError,
    check_sampling,
    default_algorithm,
    over_defaults,
    repeats,
    sampling_params,
    search_params,
    without_cuts,
)
from ramify.search.protocols import Reviser, Task
from ramify.search.records import Action, BudgetLimits, Sampling, SearchParams, UsedDefaults
from ramify.search.tree import Tree
from ramify.service.branching import branch_origin, branch_prompt, inherited
from ramify.service.errors import (
    BadRequest,
    over,
    require_token_ids,
    unknown_model,
)
from ramify.service.policies import own_prompts
from ramify.service.ports import Engines
from ramify.service.refinement import (
    TEMPLATE,
    asker,
    check_room,
    of_policy,
    of_task,
    require_refinable,
    reviser_of,
    tells,
)
from ramify.service.search_spec import SearchSpec
from ramify.service.search_view import TREE, uuid7
from ramify.settings import RequestCaps
from ramify.weights import SearchDefaults, Worth, for_budget

DEFAULT_MAX_TOKENS = Sampling().max_tokens


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """A tree that has only its root, and what it takes to grow it."""

    tree: Tree
    task: Task
    reviser: Reviser | None
    """Who asks for better answers; `None` unless the action is `refine`."""
    deadline: float
    """Seconds from the request's arrival."""
    serving: Serving
    """The release that it was prepared for."""

    @property
    def tokens(self) -> int:
        """Tokens that the search may generate from here on."""
        assert self.tree.params.budget.tokens is not None
        return self.tree.params.budget.tokens - self.tree.usage.completion_tokens


@dataclass(frozen=True, slots=True)
class SearchPreparer:
    """Prepares searches for the model that is served, within the server's caps."""

    engines: Engines
    caps: RequestCaps
    now: Callable[[], float]
    """Unix seconds."""
    replica: int | None = None
    """Number of this server among several (the setting `replica`)."""

    def prepare(self, spec: SearchSpec) -> PreparedSearch:
        """Check a search and fill in its defaults. Raises `ServiceError` that names the field at fault."""
        if spec.model is not None and spec.model != self.engines.serving.name:
            raise unknown_model(spec.model, self.engines.serving.name)
        if spec.branch is not None:
            spec = inherited(spec, spec.branch, self.engines.serving)
        name, problem, task, spec = self._task(spec)
        prompt, tokens = self._prompt(spec)
        budget = self._limits(spec.search.get("budget", {}))
        defaults = self._defaults(spec, budget)
        sampling = self._sampling(spec, defaults, budget, len(tokens))
        params, sampling, used = self._params(spec, defaults, budget, sampling)
        if params.grader in ("verifier", "mixed") and name not in registry.gradable():
            raise BadRequest(
                f"grader {params.grader!r} needs a task that can grade: {', '.join(registry.gradable())}",
                param="search.grader",
            )
        reviser = None
        if params.action.kind == "refine":
            params, reviser = self.reviser(spec, name, problem, task, prompt, params, sampling)
        try:
            prompts = own_prompts(spec, tokens, params, sampling, self.engines)
        except ParamError as error:
            raise refused(error) from error
        now = self.now()
        tree = Tree(
            id=TREE + uuid7(now, self.replica),
            created_at=now,
            model=self.engines.serving.name,
            prompt=prompt,
            prompt_tokens=tuple(tokens),
            prompts=prompts,
            params=params,
            sampling=sampling,
            seed=secrets.randbits(53) if spec.seed is None else spec.seed,
            defaults=used,
            task=name,
            problem=problem,
            train=spec.train,
            parent_tree=spec.branch.tree.id if spec.branch else None,
            origin=branch_origin(spec.branch) if spec.branch else None,
            conversation=conversation_of(spec) if reviser and spec.messages else None,
        )
        return PreparedSearch(tree, task, reviser, self.deadline(spec.deadline), self.engines.serving)

    def as_served(self, spec: SearchSpec, prepared: PreparedSearch) -> PreparedSearch:
        """Return a search that has waited for its turn as the release served now has it searched: prepared again if
        another one was activated meanwhile, under its id and within the tokens reserved for it.

        Raises `ServiceError`."""
        if prepared.serving is self.engines.serving:
            return prepared
        reserved = self.caps.model_copy(update={"budget_tokens": prepared.tokens})
        again = replace(self, caps=reserved).prepare(spec)
        again.tree.id = prepared.tree.id
        return again

    def reviser(
        self,
        spec: SearchSpec,
        name: str,
        problem: Mapping[str, Any],
        task: BoundTask,
        prompt: str,
        params: SearchParams,
        sampling: Sampling,
    ) -> tuple[SearchParams, Reviser]:
        """Return the parameters with the template in them that holds, and who asks for better answers by it."""
        rules, length, critique = (
            registry.check(name, problem),
            self.engines.max_model_len,
            self.caps.critique_tokens,
        )
        require_refinable(spec, rules, params, critical=critique > 0)
        feedback = of_task(task)
        if not tells(rules, params):
            feedback = of_policy(spec, self.engines.tokenizer, length, sampling.max_tokens, critique)
        own = params.action.template or self.engines.serving.refine_template
        template = own or rules.refine_template or TEMPLATE
        ask = asker(spec, prompt, template, self.engines.tokenizer)
        room = length - sampling.max_tokens
        check_room(ask, room, sampling.max_tokens)
        action = replace(params.action, template=template)
        return replace(params, action=action), reviser_of(feedback, ask, room)

    def _prompt(self, spec: SearchSpec) -> tuple[str, list[int]]:
        if spec.branch is not None:
            return branch_prompt(spec.branch, self.engines.max_model_len)
        length = len(spec.prompt or "") + sum(len(m.content) for m in spec.messages)
        field = "messages" if spec.prompt is None else "prompt"
        if length > self.caps.prompt_chars:
            raise BadRequest(f"too long: {length} characters > {self.caps.prompt_chars}", param=field)
        if isinstance(spec.prompt, str):
            text, tokens = spec.prompt, self.engines.tokenizer.encode(spec.prompt)
        else:
            tokens = self._ids(spec.prompt) if spec.prompt is not None else self._chat(spec, field)
            text = self.engines.tokenizer.decode(tokens)
        if not tokens:
            raise BadRequest("must not be empty", param=field)
        if len(tokens) >= self.engines.max_model_len:
            raise BadRequest(
                f"has {len(tokens)} tokens; the model takes {self.engines.max_model_len}, the answer included",
                param=field,
            )
        return text, tokens

    def _ids(self, prompt: tuple[int, ...]) -> list[int]:
        require_token_ids(prompt, self.engines.serving.vocabulary, "prompt")
        return list(prompt)

    def _chat(self, spec: SearchSpec, field: str) -> list[int]:
        try:
            return self.engines.tokenizer.encode_chat([m.fields() for m in spec.messages], spec.template)
        except ValueError as error:
            raise BadRequest(
                f"cannot be put through the chat template: {str(error)[:200]}", param=field
            ) from error

    def _defaults(self, spec: SearchSpec, budget: BudgetLimits) -> SearchDefaults | None:
        """Return the search defaults that hold for a request; `None`: the algorithm's own do. Those of a model's values
        mean nothing to a request that is judged by the policy's confidence."""
        if spec.share is not None:
            budget = replace(budget, tokens=spec.share)
        defaults = (
            for_budget(self.engines.serving.search, budget, self._worth(spec)) if spec.defaults else None
        )
        if defaults is None or spec.search.get("algorithm") not in (None, defaults.algorithm):
            return None
        by_confidence = spec.search.get("grader") == "confidence" != defaults.search.get("grader")
        return None if by_confidence and self.engines.serving.judged else defaults

    def _worth(self, spec: SearchSpec) -> Worth:
        """Return what seconds are worth to a request, with the draws in flight and the length that it names."""
        longest = spec.sampling.get("max_tokens", self.engines.serving.max_tokens or DEFAULT_MAX_TOKENS)

        def worth(seconds: float, most: int) -> float | None:
            return self.engines.crowd.worth(seconds, spec.search.get("parallel", most), longest)

        return worth

    def _sampling(
        self, spec: SearchSpec, defaults: SearchDefaults | None, budget: BudgetLimits, prompt_tokens: int
    ) -> Sampling:
        room = self.engines.max_model_len - prompt_tokens
        most = budget.tokens or self.caps.budget_tokens
        longest = min(
            self.engines.serving.max_tokens or DEFAULT_MAX_TOKENS, room, most, self.caps.answer_tokens
        )
        try:
            sampling = sampling_params(
                **{"max_tokens": longest, **(defaults.sampling if defaults else {}), **spec.sampling}
            )
        except ParamError as error:
            raise refused(error) from error
        if sampling.max_tokens > self.caps.answer_tokens:
            raise over("sampling.max_tokens", sampling.max_tokens, self.caps.answer_tokens)
        if sampling.max_tokens > room:
            raise BadRequest(
                f"is {sampling.max_tokens}, but {prompt_tokens} prompt tokens leave room for {room} in the model's "
                f"{self.engines.max_model_len}",
                param="sampling.max_tokens",
            )
        return sampling

    def _params(
        self, spec: SearchSpec, defaults: SearchDefaults | None, budget: BudgetLimits, sampling: Sampling
    ) -> tuple[SearchParams, Sampling, UsedDefaults | None]:
        """Return the search's parameters, the sampling that goes with them, and what both have from `defaults`."""
        given = {**spec.search, "budget": budget}
        judged = self.engines.serving.judged
        own = dict(defaults.search) if defaults else {}
        chosen = own.pop("algorithm", None) or default_algorithm(spec.search, judged=judged)
        algorithm = given.pop("algorithm", chosen)
        try:
            if "action" in given:
                given["action"] = self._action(given["action"], search_params(algorithm).action)
            params, used = over_defaults(algorithm, own, given, judged=judged)
            if "action" not in given and self.engines.serving.action is not None:
                params = replace(params, action=self.engines.serving.action)
            if "max_depth" not in given and "max_depth" not in used:
                params = without_cuts(params, sampling)
            params = replace(params, budget=self._budget(params, sampling))
            if spec.greedy_by_habit and sampling.temperature == 0 and repeats(params):
                usual = sampling_params(**(defaults.sampling if defaults else {}))
                sampling = replace(sampling, temperature=usual.temperature)
            check_sampling(params, sampling)
        except ParamError as error:
            if defaults and "algorithm" not in spec.search and error.field in spec.search:
                error.message += f" ({algorithm!r} is the default of {self.engines.serving.search_from})"
            raise refused(error) from error
        return params, sampling, self._used(spec, defaults, used, sampling)

    def _used(
        self,
        spec: SearchSpec,
        defaults: SearchDefaults | None,
        search: Mapping[str, Any],
        sampling: Sampling,
    ) -> UsedDefaults | None:
        """Return what a search has from `defaults`. search: the fields of `search` that it has."""
        if defaults is None:
            return None
        if "algorithm" not in spec.search:
            search = {"algorithm": defaults.algorithm, **search}
        sampled = {
            name: value
            for name, value in defaults.sampling.items()
            if getattr(sampling, name) != spec.sampling.get(name)
        }
        return UsedDefaults(self.engines.serving.search_from, search, sampled) if search or sampled else None

    def _limits(self, given: Mapping[str, Any]) -> BudgetLimits:
        """Return the budget asked for. Simulations that nobody named are never more than the server takes."""
        limits = BudgetLimits(**given)
        if "simulations" in given:
            return limits
        return replace(limits, simulations=min(limits.simulations, self.caps.budget_simulations))

    def _action(self, given: Mapping[str, Any], default: Action) -> Action:
        kind = given.get("kind", (self.engines.serving.action or default).kind)
        kinds_with = {"stop": ("step",), "max_tokens": ("step", "chunk"), "template": ("refine",)}
        for name, kinds in kinds_with.items():
            if name in given and kind not in kinds:
                raise ParamError(f"action.{name}", f"has no effect on actions of kind {kind!r}")
        return replace(self.engines.serving.action or default, **given)

    def _budget(self, params: SearchParams, sampling: Sampling) -> BudgetLimits:
        budget, caps = params.budget, self.caps
        require_capped(budget, caps, "search.budget")
        return replace(
            budget,
            tokens=budget.tokens or min(caps.budget_tokens, worst_case(params, sampling)),
            nodes=budget.nodes or caps.budget_nodes,
        )

    def deadline(self, asked: float | None) -> float:
        """Return a request's deadline in seconds. Raises `BadRequest` for one above the server's cap."""
        if asked is not None and asked > self.caps.deadline_seconds:
            raise over("deadline", asked, self.caps.deadline_seconds)
        return asked or self.caps.deadline_seconds

    def _said(self, spec: SearchSpec) -> str:
        """Return the text of the prompt; an empty one for a conversation and for token ids that do not exist."""
        if isinstance(spec.prompt, tuple):
            known = all(0 <= token < self.engines.serving.vocabulary for token in spec.prompt)
            return self.engines.tokenizer.decode(spec.prompt) if known else ""
        return spec.prompt or ""

    def _task(self, spec: SearchSpec) -> tuple[str, Mapping[str, Any], BoundTask, SearchSpec]:
        """Return the task's name and problem, the task itself, and the spec.

        If the prompt states a problem of the task, the spec's prompt is in the task's own words."""
        name = spec.task or self.engines.serving.task or "none"
        problem = spec.problem
        if problem is None and (stated := registry.stated(name, self._said(spec))):
            problem, prompt = stated
            if isinstance(spec.prompt, str):
                spec = replace(spec, prompt=prompt)  # worded as the model was trained on it
        if problem is None and spec.task is None:
            name = "none"  # the model's own task, but this prompt is no problem of it
        try:
            return name, problem or {}, registry.task(name, problem or {}), spec
        except BadTask as error:
            raise BadRequest(error.message, param="task.name") from error
        except BadProblem as error:
            field = "" if spec.problem is None or error.field == "problem" else f".{error.field}"
            raise BadRequest(error.message, param=f"task.problem{field}") from error


def require_capped(budget: BudgetLimits, caps: RequestCaps, field: str) -> None:
    """Raise `BadRequest` for a limit above the server's cap. field: that of the budget."""
    for name, cap in (
        ("simulations", caps.budget_simulations),
        ("tokens", caps.budget_tokens),
        ("nodes", caps.budget_nodes),
        ("seconds", caps.deadline_seconds),
    ):
        value = getattr(budget, name)
        if value is not None and value > cap:
            raise over(f"{field}.{name}", value, cap)


def conversation_of(spec: SearchSpec) -> dict[str, Any]:
    """Return a request's conversation as a tree keeps it."""
    return {"messages": [message.fields() for message in spec.messages], "template": dict(spec.template)}


def refused(error: ParamError) -> BadRequest:
    """Return the refusal of a request for one of its parameters."""
    param = error.field if error.field.startswith("sampling.") else f"search.{error.field}"
    return BadRequest(error.message, param=param)


def worst_case(params: SearchParams, sampling: Sampling) -> int:
    """Return the most tokens that a search can generate before its simulations end, the final answer's included."""
    return ALGORITHMS[params.algorithm].worst_case(params, sampling) + sampling.max_tokens
