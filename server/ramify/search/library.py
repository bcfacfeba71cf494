"""Whole searches, for a program of one's own: begin one, or go on with one that has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ramify.search.evaluator import all_judge
from ramify.search.params import ParamError, check_sampling, default_algorithm, over_defaults, without_cuts
from ramify.search.protocols import Policy, Reviser, Scorer, Task
from ramify.search.records import BudgetLimits, Sampling
from ramify.search.run import Search, by_name
from ramify.search.scorers import Scorers
from ramify.search.state import taken_on
from ramify.search.tree import Tree


async def search(
    prompt_tokens: Sequence[int],
    policy: Policy | Mapping[str, Policy],
    scorer: Scorer | None,
    task: Task,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    prompts: Mapping[str, Sequence[int]] | None = None,
    reviser: Reviser | None = None,
    clock: Callable[[], float] = time.monotonic,
    **params: Any,
) -> Tree:
    """Search once, in a program of one's own. Returns the finished tree, with the best answer in `Tree.answer`.

    prompt_tokens: token ids, as the policy knows them. policy: one, or several by name; all of those then draw, unless
    `policies` among the parameters names fewer. sampling, params: how one answer is drawn, and the fields of
    `SearchParams`; what is not given is the algorithm's default. scorer: `None` searches without a value model
    (`params.no_model_defaults`). prompts: by a policy's name, the token ids that it is given in place of
    `prompt_tokens`. reviser: who asks for better answers, needed with `action=Action("refine")`. clock: seconds,
    monotonic.

    Raises `ParamError`, which names the parameter that is wrong. When the policy, the scorer or the task fails,
    nothing is raised: `Tree.status` and `Tree.error` tell what happened.
    """
    sampling = sampling or Sampling()
    if isinstance(policy, Mapping):
        params.setdefault("policies", tuple(policy))
    judged = bool(Scorers.of(scorer).weighing) or all_judge(by_name(policy))
    algorithm = params.pop("algorithm", None) or default_algorithm(params, judged=judged)
    checked, _ = over_defaults(algorithm, {}, params, judged=judged)
    if "max_depth" not in params:
        checked = without_cuts(checked, sampling)
    check_sampling(checked, sampling)
    if checked.action.kind == "refine" and reviser is None:
        raise ParamError("action.kind", "'refine' needs a reviser, who asks for better answers")
    tree = Tree(prompt_tokens=tuple(prompt_tokens), params=checked, sampling=sampling, seed=seed)
    if prompts:
        tree.prompts = {name: tuple(tokens) for name, tokens in prompts.items()}
    await Search(tree, policy, scorer, task, clock=clock, reviser=reviser, keeps_state=True).run()
    return tree


async def go_on(
    tree: Tree,
    policy: Policy | Mapping[str, Policy],
    scorer: Scorer | None,
    task: Task,
    *,
    budget: BudgetLimits,
    reviser: Reviser | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tree:
    """Take a search on that has ended, exactly where it was, in the world that it had. Returns the longer tree, which
    has taken the nodes over.

    budget: limits of the whole, larger than what is spent. Raises `BadState` if the tree has kept no state."""
    longer = taken_on(tree, budget, created_at=tree.created_at)
    await Search(longer, policy, scorer, task, clock=clock, reviser=reviser, keeps_state=True).run()
    return longer
