"""Tree search over a language model, as a library: bring a policy, a scorer and a task.

Nothing here knows HTTP, vLLM or SQL, and nothing is needed but the standard library. A policy draws continuations of
token ids, a scorer judges them, and a task tells answers apart::

    import asyncio
    import math
    import random

    from ramify.search import Action, BudgetLimits, Continuation, Sampling, Score, Verdict, search


    class Digits:  # the policy: it writes four random digits, a token each
        async def sample(self, prefix, draw, seeds):
            return [self.write(random.Random(seed), 5 - len(prefix), draw.max_tokens) for seed in seeds]

        def write(self, rng, left, most):
            n = min(left, most)
            text = "".join(rng.choices("0123456789", k=n))
            finish = "eos" if n == left else "length"
            tokens, logprobs, ends = tuple(map(ord, text)), (math.log(0.1),) * n, tuple(range(1, n + 1))
            return Continuation(tokens, text, logprobs, ends, finish, "v1")


    class Sum:  # the scorer: large digits are promising
        async def score(self, sequences):
            return [Score(sum(token - ord("0") for token in tokens[1:]) / 36, "v1") for tokens in sequences]


    class Nines:  # the task: each text is an answer of its own, and one is right
        async def finals(self, texts):
            return list(texts)

        async def grade(self, text):
            return Verdict(float(text == "9999"), "four nines or not")


    async def main():
        digit, four = Action("chunk", max_tokens=1), Sampling(max_tokens=4)
        budget = BudgetLimits(simulations=300)
        tree = await search([0], Digits(), Sum(), Nines(), action=digit, sampling=four, budget=budget)
        print(tree.answer.text, tree.answer.value, tree.usage.completion_tokens)


    asyncio.run(main())

The modules, in the order in which to read them; each imports only from those above it:

`records`, `protocols`: what goes in and comes out, and the world that a search knows.
`tree`, `budget`, `cutting`: nodes, statistics and random seeds; limits; a continuation cut into actions.
`selection`: P; PUCT and Thompson sampling over children and "draw afresh here".
`plans`, `builder`, `evaluator`: one simulation before and after the engine; the tree's only writer; a plan carried out.
`algorithms`: where to draw next, one file each.
`params`, `grouping`: defaults and bounds; which answers are equal, told beside the search.
`answers`: which answer a tree gives, and when it is settled.
`run`: keeps plans in flight, lands them, ends well whatever happens.
`codec`: trees as JSON.
"""

from ramify.search.params import ParamError
from ramify.search.protocols import EngineDead, GradingFailed, Policy, SampleAborted, Scorer, Task
from ramify.search.records import (
    Action,
    Answer,
    BudgetLimits,
    Continuation,
    Draw,
    Sampling,
    Score,
    SearchParams,
    Usage,
    Verdict,
)
from ramify.search.run import Progress, Search, search
from ramify.search.tree import Node, Tree

__all__ = [
    "Action",
    "Answer",
    "BudgetLimits",
    "Continuation",
    "Draw",
    "EngineDead",
    "GradingFailed",
    "Node",
    "ParamError",
    "Policy",
    "Progress",
    "SampleAborted",
    "Sampling",
    "Score",
    "Scorer",
    "Search",
    "SearchParams",
    "Task",
    "Tree",
    "Usage",
    "Verdict",
    "search",
]
