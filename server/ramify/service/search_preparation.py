"""Turn a search's specification into a tree to grow and the task that judges it: fill in defaults, check limits.

A search that names no token budget gets the most that its other limits could cost, within the server's cap, so that
admission always knows what a running search may still spend.

A branch searches on from a node of a logged tree. Its prompt is the old one and the answer as far as the node, token
for token as it was sampled, never written again from text. The task judges whole answers, so the new tree remembers the
text that its prompt already holds (`Origin`); its budget counts new tokens only. What the parent may not teach, its
branches may not teach either.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ramify.engines import Serving
from ramify.rewards import registry
from ramify.rewards.errors import BadProblem, UnknownTask
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import (
    ParamError,
    check_sampling,
    repeats,
    search_params,
    without_cuts,
)
from ramify.search.protocols import Task
from ramify.search.records import Action, BudgetLimits, Origin, Sampling, SearchParams
from ramify.search.tree import Tree
from ramify.service.errors import (
    BadRequest,
    ServiceError,
    no_value_model,
    over,
    require_token_ids,
    unknown_model,
)
from ramify.service.ports import Engines
from ramify.service.search_spec import Branch, SearchSpec
from ramify.service.search_state import TREE, uuid7
from ramify.settings import RequestCaps

DEFAULT_MAX_TOKENS = Sampling().max_tokens


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """A tree that has only its root, and what it takes to grow it."""

    tree: Tree
    task: Task
    deadline: float
    """Seconds from the request's arrival."""

    @property
    def tokens(self) -> int:
        """Tokens that the search may generate."""
        assert self.tree.params.budget.tokens is not None
        return self.tree.params.budget.tokens


@dataclass(frozen=True, slots=True)
class SearchPreparer:
    """Prepares searches for the model that is served, within the server's caps."""

    engines: Engines
    caps: RequestCaps
    now: Callable[[], float]
    """Unix seconds."""

    def prepare(self, spec: SearchSpec) -> PreparedSearch:
        """Check a search and fill in its defaults. Raises `ServiceError` that names the field at fault."""
        if spec.model is not None and spec.model != self.engines.serving.name:
            raise unknown_model(spec.model, self.engines.serving.name)
        if spec.branch is not None:
            spec = inherited(spec, spec.branch, self.engines.serving)
        name, problem, task, spec = self._task(spec)
        prompt, tokens = self._prompt(spec)
        budget = self._limits(spec.search.get("budget", {}))
        sampling = self._sampling(spec, budget, len(tokens))
        params, sampling = self._params(spec, budget, sampling)
        if not self.engines.serving.judged and needs_judging(params):
            raise no_value_model("search.algorithm")
        if params.grader == "verifier" and name not in registry.gradable():
            raise BadRequest(
                f"grader 'verifier' needs a task that can grade: {', '.join(registry.gradable())}",
                param="search.grader",
            )
        now = self.now()
        tree = Tree(
            id=TREE + uuid7(now),
            created_at=now,
            model=self.engines.serving.name,
            prompt=prompt,
            prompt_tokens=tuple(tokens),
            params=params,
            sampling=sampling,
            seed=secrets.randbits(53) if spec.seed is None else spec.seed,
            task=name,
            problem=problem,
            train=spec.train,
            parent_tree=spec.branch.tree.id if spec.branch else None,
            origin=branch_origin(spec.branch) if spec.branch else None,
        )
        return PreparedSearch(tree, task, self._deadline(spec))

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

    def _sampling(self, spec: SearchSpec, budget: BudgetLimits, prompt_tokens: int) -> Sampling:
        room = self.engines.max_model_len - prompt_tokens
        most = budget.tokens or self.caps.budget_tokens
        default = min(
            self.engines.serving.max_tokens or DEFAULT_MAX_TOKENS, room, most, self.caps.answer_tokens
        )
        sampling = Sampling(**{"max_tokens": default, **spec.sampling})
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
        self, spec: SearchSpec, budget: BudgetLimits, sampling: Sampling
    ) -> tuple[SearchParams, Sampling]:
        """Return the search's parameters, and the sampling that goes with them."""
        fields = {**spec.search, "budget": budget}
        algorithm = fields.pop("algorithm", SearchParams().algorithm)
        try:
            defaults = search_params(algorithm)
            if "action" in fields:
                fields["action"] = self._action(fields["action"], defaults.action)
            params = search_params(algorithm, **fields)
            if "action" not in fields and self.engines.serving.action is not None:
                params = replace(params, action=self.engines.serving.action)
            if "max_depth" not in fields:
                params = without_cuts(params, sampling)
            params = replace(params, budget=self._budget(params, sampling))
            if spec.greedy_by_habit and sampling.temperature == 0 and repeats(params):
                sampling = replace(sampling, temperature=Sampling().temperature)
            check_sampling(params, sampling)
        except ParamError as error:
            param = error.field if error.field.startswith("sampling.") else f"search.{error.field}"
            raise BadRequest(error.message, param=param) from error
        return params, sampling

    def _limits(self, given: Mapping[str, Any]) -> BudgetLimits:
        """Return the budget asked for. Simulations that nobody named are never more than the server takes."""
        limits = BudgetLimits(**given)
        if "simulations" in given:
            return limits
        return replace(limits, simulations=min(limits.simulations, self.caps.budget_simulations))

    def _action(self, given: Mapping[str, Any], default: Action) -> Action:
        kind = given.get("kind", (self.engines.serving.action or default).kind)
        for name, kinds in {"stop": ("step",), "max_tokens": ("step", "chunk")}.items():
            if name in given and kind not in kinds:
                raise ParamError(f"action.{name}", f"has no effect on actions of kind {kind!r}")
        return replace(self.engines.serving.action or default, **given)

    def _budget(self, params: SearchParams, sampling: Sampling) -> BudgetLimits:
        budget, caps = params.budget, self.caps
        for name, cap in (
            ("simulations", caps.budget_simulations),
            ("tokens", caps.budget_tokens),
            ("nodes", caps.budget_nodes),
            ("seconds", caps.deadline_seconds),
        ):
            value = getattr(budget, name)
            if value is not None and value > cap:
                raise over(f"search.budget.{name}", value, cap)
        return replace(
            budget,
            tokens=budget.tokens or min(caps.budget_tokens, worst_case(params, sampling)),
            nodes=budget.nodes or caps.budget_nodes,
        )

    def _deadline(self, spec: SearchSpec) -> float:
        if spec.deadline is not None and spec.deadline > self.caps.deadline_seconds:
            raise over("deadline", spec.deadline, self.caps.deadline_seconds)
        return spec.deadline or self.caps.deadline_seconds

    def _said(self, spec: SearchSpec) -> str:
        """Return the text of the prompt; an empty one for a conversation and for token ids that do not exist."""
        if isinstance(spec.prompt, tuple):
            known = all(0 <= token < self.engines.serving.vocabulary for token in spec.prompt)
            return self.engines.tokenizer.decode(spec.prompt) if known else ""
        return spec.prompt or ""

    def _task(self, spec: SearchSpec) -> tuple[str, Mapping[str, Any], Task, SearchSpec]:
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
        except UnknownTask as error:
            raise BadRequest(error.message, param="task.name") from error
        except BadProblem as error:
            field = "" if spec.problem is None or error.field == "problem" else f".{error.field}"
            raise BadRequest(error.message, param=f"task.problem{field}") from error


def needs_judging(params: SearchParams) -> bool:
    """Tell whether a search asks the value model: every tree does, of flat ones those whose answer rule weighs."""
    flat = ALGORITHMS[params.algorithm].flat
    return not flat or (params.grader == "model" and params.answer != "majority")


def worst_case(params: SearchParams, sampling: Sampling) -> int:
    """Return the most tokens that a search can generate before its simulations end, the final answer's included."""
    return ALGORITHMS[params.algorithm].worst_case(params, sampling) + sampling.max_tokens


# -- searching on from a node of a logged tree ------------------------------------------------------------------


def inherited(spec: SearchSpec, branch: Branch, serving: Serving) -> SearchSpec:
    """Give a branch the task and the problem of its parent. Raises `ServiceError`."""
    tree, node = branch.tree, branch.node
    if node >= len(tree.nodes):
        raise BadRequest(f"is {node}; the tree has nodes 0 to {len(tree.nodes) - 1}", param="node")
    if tree.nodes[node].terminal in ("eos", "stop"):
        raise BadRequest(
            f"is {node}, at which the answer is finished: branch from a node above it", param="node"
        )
    if tree.model != serving.name:
        raise ServiceError(
            "conflict",
            f"the tree was searched with the model {tree.model[:100]!r} and this server has {serving.name!r}: "
            "token ids of one mean nothing to the other",
            param="tree",
        )
    problem = tree.problem if tree.task not in (None, "none") else None
    return replace(spec, task=tree.task or "none", problem=problem, train=spec.train and tree.train)


def branch_prompt(branch: Branch, max_model_len: int) -> tuple[str, list[int]]:
    """Return a branch's prompt, as text and as token ids. Raises `BadRequest`."""
    tree = branch.tree
    lineage = tree.lineage(tree.nodes[branch.node])
    tokens = tree.sequence(lineage[-1])
    if len(tokens) >= max_model_len:
        raise BadRequest(
            f"has {len(tokens)} tokens up to it; the model takes {max_model_len}, the answer included",
            param="node",
        )
    return tree.prompt + "".join(node.text for node in lineage), list(tokens)


def branch_origin(branch: Branch) -> Origin:
    """Return what a branch's prompt already holds of the answer."""
    tree = branch.tree
    node = tree.nodes[branch.node]
    before = tree.origin.tokens if tree.origin else 0
    return Origin(branch.node, tree.text(node), before + len(tree.answer_tokens(node)))
