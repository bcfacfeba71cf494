"""Tree search over a language model, as a library: bring a policy, a scorer and a task.

Nothing here knows HTTP, vLLM or SQL, and nothing is needed but the standard library. A policy draws continuations of
token ids, a scorer judges them, and a task tells answers apart::

    import asyncio
    import math
    import random

    from ramify.search import Action, BudgetLimits, Continuation, Sampling, Score, Verdict, search


    class Digits:  # the policy: it writes four random digits, a token each
        async def sample(self, prefix, sampling, seeds):
            return [self.write(random.Random(seed), 5 - len(prefix), sampling.max_tokens) for seed in seeds]

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
        async def final(self, text):
            return text

        async def grade(self, text):
            return Verdict(float(text == "9999"), "four nines or not")


    async def main():
        digit, four = Action("chunk", max_tokens=1), Sampling(max_tokens=4)
        budget = BudgetLimits(simulations=300)
        tree = await search(
            [0], Digits(), Sum(), Nines(), action=digit, sampling=four, budget=budget, answer="orm_max"
        )
        print(tree.answer.text, tree.answer.value, tree.usage.completion_tokens)


    asyncio.run(main())

A search in short. A *simulation* goes down the tree from the search's root (the prompt, until a search commits itself
to steps) and *selects* a node to draw at: by PUCT, by Thompson sampling, or by whatever rule its algorithm has. Its
*arms* at a node are the children and, if the tree may widen there, "draw afresh here". The node is *expanded*: the
policy draws *continuations* there, which are cut into *actions*, one a node; equal actions merge and count how often
they were drawn. A *plan* is the request for such draws: it is *in flight* once it is sent, beside others, and *lands*
once its draws are in the tree. Whatever is new is judged, by the scorer or by the task's verifier, and its *leaf
value*, or the mean over draws of one step, or that of a *rollout* (one more draw, to the end of an answer), is *backed
up*: every node on the path counts one more visit of that value. *Counted* against the budget are simulations, generated
tokens (aborted and repeated draws too), seconds and nodes; tokens and nodes are reserved before a draw is sent. The
search *ends* at the first limit, when it is exhausted (nothing is left to draw, or it mostly comes back to what it
has), when its answer is settled, when it is stopped, or when the policy, the scorer or the task fails; its *answer
rule* then chooses among the complete answers, each counted as often as it was drawn: by votes, values or visits.

The modules, in the order in which to read them; each imports only from those above it, types aside:

`records`: parameters that go in, samples and judgements that come back, answers that go out.
`protocols`: the world that a search knows: `Policy`, `Scorer`, `Task`, and `Reviser` if answers are refined.
`cutting`: a continuation cut into actions; the stop string that ends an answer.
`tree`: nodes and their statistics; the leaf value; random seeds.
`budget`: what was spent and reserved, and which limit is met.
`selection`: P of the children; PUCT and Thompson sampling over them and "draw afresh here".
`plans`: a request of one simulation, and the draws that come back for it.
`policies`: which of several policies draws next.
`departures`: where a draw leaves what is known, if draws are made without replacement.
`builder`: the only hands that change a tree: merge, back up; when a search is exhausted.
`scorers`: several scorers at once, by weight; those that prune.
`evaluator`: a plan carried out: draw, cut, judge.
`algorithms`: which plan comes next (`base`, then `mcts` and the others), and the registry.
`state`: what a search keeps beside its tree, to be taken on later.
`params`: parameters checked: defaults, bounds, those without effect.
`grouping`: which answers are equal, asked of the task beside the search; their votes.
`answers`: which answer a tree gives, and when it is settled.
`crowd`: searches that share a policy, and how many answers each writes at once to use its seconds well.
`run`: plans kept in flight and landed; every way in which a search ends.
`library`: a whole search, begun or gone on with, for a program of one's own.
`allocation`: how much the next tokens of a search are expected to bring.
`batch`: several searches on one budget, which goes to those that gain most.
`codec`: trees as JSON.
"""

from ramify.search.library import go_on, search
from ramify.search.params import ParamError
from ramify.search.protocols import EngineDead, GradingFailed, Policy, Reviser, SampleAborted, Scorer, Task
from ramify.search.records import (
    Action,
    Answer,
    BudgetLimits,
    Continuation,
    PolicyUsage,
    Revision,
    Sampling,
    Score,
    SearchParams,
    State,
    Usage,
    Verdict,
)
from ramify.search.run import Progress, Search
from ramify.search.scorers import NamedScorer, Scorers
from ramify.search.state import BadState
from ramify.search.tree import Node, Tree

__all__ = [
    "Action",
    "Answer",
    "BadState",
    "BudgetLimits",
    "Continuation",
    "EngineDead",
    "GradingFailed",
    "NamedScorer",
    "Node",
    "ParamError",
    "Policy",
    "PolicyUsage",
    "Progress",
    "Reviser",
    "Revision",
    "SampleAborted",
    "Sampling",
    "Score",
    "Scorer",
    "Scorers",
    "Search",
    "SearchParams",
    "State",
    "Task",
    "Tree",
    "Usage",
    "Verdict",
    "go_on",
    "search",
]
