"""Between wire models and the service: the one place that knows both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from ramify.api import wire_batch
from ramify.api import wire_search as wire
from ramify.engines import Serving
from ramify.rewards import Message
from ramify.search.run import Progress
from ramify.search.tree import Node, Tree, derive_seed
from ramify.service.continuing import ContinueSpec
from ramify.service.search_spec import BatchSpec, Branch, SearchSpec
from ramify.service.search_view import release_of, search_id
from ramify.service.searches import RunningSearch


def search_spec(request: wire.SearchRequest) -> SearchSpec:
    return _spec(request, request.task, request, request.model)


def _spec(
    question: wire.Question, task: wire.Task | None, options: wire.SearchOptions, model: str | None
) -> SearchSpec:
    return SearchSpec(
        prompt=question.prompt,
        messages=tuple(Message(m.role, m.content) for m in question.messages or ()),
        template=question.chat_template_kwargs or {},
        model=model,
        task=task.name if task else None,
        problem=task.problem if task else None,
        search=given(options.search),
        sampling=sampling(options.sampling),
        defaults=options.defaults,
        seed=options.seed,
        train=options.train,
        deadline=options.deadline,
    )


def batch_spec(request: wire_batch.BatchRequest) -> BatchSpec:
    """Each prompt's search gets a seed of its own, if the batch has one."""
    searches = [_spec(one, one.task or request.task, request, request.model) for one in request.prompts]
    if request.seed is not None:
        seeds = [derive_seed(request.seed, "batch", i) >> 10 for i in range(len(searches))]
        searches = [replace(one, seed=seed) for one, seed in zip(searches, seeds, strict=True)]
    budget = request.budget
    return BatchSpec(tuple(searches), budget.tokens, budget.seconds, budget.least_gain, request.parallel)


def branch_spec(request: wire.BranchRequest, tree: Tree) -> SearchSpec:
    return SearchSpec(
        branch=Branch(tree, request.node),
        search=given(request.search),
        sampling=sampling(request.sampling),
        defaults=request.defaults,
        seed=request.seed,
        train=request.train,
        deadline=request.deadline,
    )


def continue_spec(request: wire.ContinueRequest) -> ContinueSpec:
    return ContinueSpec(given(request.budget), request.train, request.deadline)


def given(model: BaseModel | None) -> Mapping[str, Any]:
    """The fields that were sent and are not null; lists become tuples, as records hold them."""
    if model is None:
        return {}
    values = model.model_dump(exclude_unset=True, exclude_none=True)
    return {name: _frozen(value) for name, value in values.items()}


def sampling(model: wire.Sampling | None) -> Mapping[str, Any]:
    """The fields of `Sampling` that were sent."""
    said = dict(given(model))
    return said | ({"top_k": top_k(said["top_k"])} if "top_k" in said else {})


def top_k(given: int | None) -> int | None:
    """vLLM's -1 keeps all tokens, as 0 does here."""
    return 0 if given == -1 else given


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return {name: _frozen(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def usage_of(tree: Tree) -> wire.Usage:
    usage = tree.usage
    return wire.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        scored_sequences=usage.scored_sequences,
        simulations=usage.simulations,
        nodes=usage.nodes,
        seconds=usage.seconds,
        truncated_answers=tree.truncated,
        pruned_branches=tree.pruned,
        by_policy=usage.by_policy,
    )


def continues_of(tree: Tree) -> str | None:
    """Return the id of the search that a tree's search goes on from."""
    return None if tree.continues is None else search_id(tree.continues.tree)


def link_of(tree_id: str) -> wire.TreeLink:
    return wire.TreeLink(id=tree_id, url=f"/trees/{tree_id}")


def search_reply(tree: Tree, serving: Serving, n: int) -> wire.SearchReply:
    """An ended search."""
    return wire.SearchReply(
        id=search_id(tree.id),
        created=int(tree.created_at),
        model=tree.model,
        status=tree.status,
        stop_reason=tree.stop_reason,
        answer=tree.answer,
        candidates=tree.candidates[:n],
        verdict=tree.verdict,
        defaults=tree.defaults,
        tree=link_of(tree.id),
        continues=continues_of(tree),
        release=release_of(tree, serving),
        usage=usage_of(tree),
        error=tree.error,
    )


def running_reply(running: RunningSearch, serving: Serving) -> wire.SearchReply:
    """A running search: its best answer so far and what it has spent."""
    progress, tree = running.progress(), running.tree
    prompt_tokens = len(tree.prompt_tokens)
    return wire.SearchReply(
        id=running.id,
        created=int(tree.created_at),
        model=tree.model,
        status="running",
        stop_reason=None,
        answer=progress.best,
        candidates=[progress.best] if progress.best else [],
        defaults=tree.defaults,
        tree=link_of(tree.id),
        continues=continues_of(tree),
        release=release_of(running.tree, serving),
        usage=wire.Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=progress.tokens,
            total_tokens=prompt_tokens + progress.tokens,
            scored_sequences=tree.usage.scored_sequences,
            simulations=progress.simulations,
            nodes=progress.nodes,
            seconds=progress.seconds,
            truncated_answers=tree.truncated,
            pruned_branches=tree.pruned,
        ),
    )


def started_event(tree: Tree, serving: Serving) -> wire.Started:
    return wire.Started(
        id=search_id(tree.id),
        created=int(tree.created_at),
        model=tree.model,
        release=serving.release,
        tree=link_of(tree.id),
    )


def progress_event(search: str, progress: Progress, nodes: Sequence[Node] | None = None) -> wire.Progressed:
    return wire.Progressed(
        id=search,
        simulations=progress.simulations,
        tokens=progress.tokens,
        nodes=progress.nodes,
        seconds=progress.seconds,
        answer=progress.best,
        new_nodes=None if nodes is None else list(nodes),
    )


def replayed_event(reply: wire.SearchReply) -> wire.Started:
    """The first event of an answer that is replayed."""
    return wire.Started(
        id=reply.id, created=reply.created, model=reply.model, release=reply.release, tree=reply.tree
    )


# -- batches -----------------------------------------------------------------------------------------------------


def batch_started(number: str, trees: Sequence[Tree], serving: Serving) -> wire_batch.BatchStarted:
    return wire_batch.BatchStarted(
        id=number,
        created=int(trees[0].created_at),
        model=trees[0].model,
        release=serving.release,
        searches=[started_event(tree, serving) for tree in trees],
    )


def batch_answer(index: int, tree: Tree, serving: Serving, n: int) -> wire_batch.BatchAnswer:
    return wire_batch.BatchAnswer(index=index, **dict(search_reply(tree, serving, n)))


def batch_completed(number: str, trees: Sequence[Tree]) -> wire_batch.BatchCompleted:
    """An ended batch, its answers left out."""
    usages = [usage_of(tree) for tree in trees]
    counted = (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "scored_sequences",
        "simulations",
        "nodes",
    )
    return wire_batch.BatchCompleted(
        id=number,
        created=int(trees[0].created_at),
        model=trees[0].model,
        usage=wire_batch.BatchUsage(
            **{name: sum(getattr(usage, name) for usage in usages) for name in counted},
            seconds=max(usage.seconds for usage in usages),
            spread=[usage.completion_tokens for usage in usages],
        ),
    )


def batch_reply(number: str, trees: Sequence[Tree], serving: Serving, n: int) -> wire_batch.BatchReply:
    results = [batch_answer(i, tree, serving, n) for i, tree in enumerate(trees)]
    return wire_batch.BatchReply(**dict(batch_completed(number, trees)), results=results)
