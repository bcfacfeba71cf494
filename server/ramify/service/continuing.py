"""Taking a search on later: its tree goes on under larger limits, exactly where it was.

The longer tree is logged under an id of its own and names the one that it continues; whatever landed in that part is
not drawn again. Limits are those of the whole: what the part has spent counts. A search goes on with the releases that
its policies began with, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ramify.engines import NamedPolicy, Serving
from ramify.rewards import Message, registry
from ramify.rewards.errors import BadProblem
from ramify.rewards.grading import BoundTask
from ramify.search.algorithms import ALGORITHMS
from ramify.search.protocols import Reviser
from ramify.search.records import BudgetLimits, SearchState
from ramify.search.state import taken_on
from ramify.search.tree import Tree
from ramify.service.errors import BadRequest, ServiceError
from ramify.service.search_preparation import PreparedSearch, SearchPreparer, require_capped, worst_case
from ramify.service.search_spec import SearchSpec
from ramify.service.search_view import search_id
from ramify.settings import RequestCaps

SETTLED = {
    "exhausted": "nothing was left to draw",
    "pruned": "safety scorers have closed every branch",
    "early": "its answer was settled",
}
"""The ends that a larger budget does not change, and why."""


@dataclass(frozen=True, slots=True)
class ContinueSpec:
    """Everything that a caller may say about a search that is to go on."""

    budget: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `BudgetLimits`, each the limit of the whole search; those left out stay as they were."""
    train: bool = True
    deadline: float | None = None
    """Seconds from the request's arrival; `None`: the server's default."""


def prepare_continuation(
    preparer: SearchPreparer, part: Tree, spec: ContinueSpec, tree_id: str
) -> PreparedSearch:
    """Return the search that goes on from a logged one, as the tree `tree_id`. It takes the nodes of `part` over.

    Raises `ServiceError`: `conflict` if the search cannot go on here, `invalid_value` for a limit that is spent."""
    require_kept(part)
    require_same_model(part, preparer.engines.serving, preparer.engines.others)
    budget = limits(part, spec.budget, preparer.caps)
    tree = taken_on(part, budget, tree_id=tree_id, created_at=preparer.now())
    tree.train = part.train and spec.train
    try:
        task = registry.task(part.task or "none", part.problem or {})
    except BadProblem as error:
        raise _refused(part, f"its task cannot be used any more: {error.message}") from error
    reviser = _reviser(preparer, tree, task)
    return PreparedSearch(tree, task, reviser, preparer.deadline(spec.deadline), preparer.engines.serving)


def _reviser(preparer: SearchPreparer, tree: Tree, task: BoundTask) -> Reviser | None:
    """Return who asks for better answers as before, under `action: refine`."""
    if tree.params.action.kind != "refine":
        return None
    said = tree.conversation or {"messages": (), "template": {}}
    asked = SearchSpec(messages=tuple(Message(**one) for one in said["messages"]), template=said["template"])
    about = tree.task or "none", tree.problem or {}, task
    return preparer.reviser(asked, *about, tree.prompt, tree.params, tree.sampling)[1]


def require_kept(part: Tree) -> SearchState:
    """Return the state that a search has kept. Raises `ServiceError` if it cannot go on, here or anywhere."""
    if part.batch is not None:
        raise _refused(part, "it shared the budget of a batch")
    if part.search_state is None:
        raise _refused(
            part, "it has kept no state: an older version has logged it, or its algorithm keeps none"
        )
    if (why := SETTLED.get(part.stop_reason or "")) is not None:
        raise _refused(
            part, f"it ended because {why} ({part.stop_reason}), which more budget does not change"
        )
    if part.params.algorithm not in ALGORITHMS:
        raise _refused(part, f"this server has no algorithm {part.params.algorithm!r}")
    return part.search_state


def require_same_model(part: Tree, serving: Serving, others: Mapping[str, NamedPolicy]) -> None:
    """Raise `ServiceError` unless what is served, and what the other policies draw with, is what has written the
    tree."""
    if part.model != serving.name:
        raise _refused(
            part, f"it searched with the model {part.model[:100]!r}, and {serving.name!r} is served"
        )
    began = {node.release for node in part.nodes if node.own and node.release}
    if other := sorted(began - {serving.release}):
        raise _refused(
            part,
            f"it began with the release {other[0]}, and {serving.release} is served: activate {other[0]} first",
        )
    for node in part.nodes:
        if node.own or not node.release or (named := others.get(node.policy or "")) is None:
            continue
        if named.release is None and named.options.url is not None:
            raise _refused(part, f"its policy {node.policy!r} has been away since the server started")
        if node.release != (now := named.release or serving.release):
            raise _refused(
                part, f"its policy {node.policy!r} drew with {node.release}, and now draws with {now}"
            )


def limits(part: Tree, given: Mapping[str, Any], caps: RequestCaps) -> BudgetLimits:
    """Return the limits of the whole search. Raises `BadRequest` for one above the server's cap, and for one that the
    part has spent."""
    state, old = require_kept(part), part.params.budget
    new = replace(old, **given)
    if "tokens" not in given and old.tokens == min(
        caps.budget_tokens, worst_case(part.params, part.sampling)
    ):
        # Nobody named it: it was what the other limits could cost at most.
        most = worst_case(replace(part.params, budget=new), part.sampling)
        new = replace(new, tokens=min(caps.budget_tokens, most))
    require_capped(new, caps, "budget")
    usage = part.usage
    spent = {
        "simulations": state.simulations - len(state.plans),
        "tokens": usage.completion_tokens,
        "nodes": usage.nodes - 1,
        "seconds": usage.seconds,
    }
    for name, used in spent.items():
        value = getattr(new, name)
        if value is not None and value <= used:
            raise BadRequest(
                f"is {value:g}, of which {used:g} are spent: give a larger one, which counts both parts",
                param=f"budget.{name}",
            )
    longest = part.sampling.max_tokens
    if not part.completions and new.tokens is not None and new.tokens - usage.completion_tokens < longest:
        raise BadRequest(
            f"is {new.tokens}, of which {usage.completion_tokens} are spent: what is left completes no answer of "
            f"{longest} tokens",
            param="budget.tokens",
        )
    return new


def _refused(part: Tree, why: str) -> ServiceError:
    return ServiceError("conflict", f"{search_id(part.id)} cannot go on: {why}", param="search_id")
