"""Records that cross the border of a search: parameters go in, samples and judgements come back, answers go out.

Everything here is frozen. Token ids are the engine's own; text is only ever read, never turned back into tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

ActionKind = Literal["step", "token", "chunk", "refine"]
Expand = Literal["step", "path"]
Select = Literal["puct", "thompson"]
Prior = Literal["count", "mean_logprob", "sum_logprob"]
Leaf = Literal["value", "rollout", "mixed"]
Grader = Literal["model", "verifier", "mixed", "confidence"]
AnswerRule = Literal["majority", "orm_max", "orm_vote", "most_visited"]
"""The answer chosen: most draws; the draw of the highest leaf value (ORM: outcome reward model, here any judge); the
largest sum of leaf values over draws; the end of the most visited path. Exactly: `answers`."""
Schedule = Literal["continuous", "waves"]
Commit = Literal["root", "step"]
EarlyStop = Literal["off", "unbeatable", "posterior", "verified"]
OutcomeSource = Literal["verifier", "human"]

Finish = Literal["eos", "stop", "length", "abandoned"]
"""Why the engine ended a sample: the model's end token, a stop string, the token cap, or a value below its hurdle."""

Terminal = Literal["eos", "stop", "truncated", "pruned"]
"""Why an answer ended at a node: the model's end token, an answer's stop string, a depth or length cap, or a safety
scorer, which closes a branch for good. Any of them makes an answer *finished*; it is *complete* after the first two."""
NO_ANSWER = ("truncated", "pruned")
"""The ends that no complete answer has: worth 0."""
Closed = Literal["context", "feedback"]
"""Why no better answer can be drawn from one: its prompt leaves no room for an answer in the model's context, or no
feedback on it could be had."""

Status = Literal[
    "running", "complete", "cancelled", "deadline", "drained", "engine_dead", "failed", "interrupted"
]
"""State of a search: running, ended by itself (complete), stopped from outside (the next three), broken by an engine
that died or by another failure, or cut off by the end of its server, as far as its last checkpoint."""
StopReason = Literal[
    "budget.simulations",
    "budget.tokens",
    "budget.seconds",
    "budget.nodes",
    "budget.shared",
    "exhausted",
    "pruned",
    "early",
    "client",
    "disconnect",
    "deadline",
    "drain",
    "error",
    "crash",
]
"""Cause of a search's end: a limit of its own or of its batch (shared), a tree without news, safety scorers that have
left no answer (pruned), a settled answer or, in a batch, one that more draws would hardly better (early), whoever
stopped it, a failure, or the end of the server that ran it (crash)."""

OMITTED = {"omitted": True}
"""Metadata of a field that a logged tree leaves out at its default: it was added after trees had been logged, and those
keep their bytes."""


def param(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    needs: tuple[str, tuple[Any, ...]] | None = None,
    omitted: bool = False,
) -> Any:
    """Declare a search parameter. Its type and docstring say the rest; `params`, the HTTP body, its schema and
    docs/search.md follow from the declaration. An algorithm has it if its class lists it in `parameters`.

    low, high: inclusive bounds. needs: another parameter, and its values with which this one has an effect; with any
    other it has none. omitted: see `OMITTED`."""
    bounds = None if low is None or high is None else (low, high)
    return field(default=default, metadata={"bounds": bounds, "needs": needs, "omitted": omitted})


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters with which one answer is sampled, or one continuation of it."""

    temperature: float = param(1.0, low=0, high=2)
    """0 is greedy; otherwise logits are divided by it. [0, 2]"""
    top_p: float = param(1.0, low=1e-6, high=1)
    """Nucleus mass, (0, 1]."""
    top_k: int = param(0, low=0, high=1_000_000)
    """Most likely tokens kept; 0 keeps all."""
    max_tokens: int = param(64, low=1, high=1_000_000)
    """Cap on the tokens of one whole answer, or of one continuation if that is what is sampled. At least 1."""
    stop: tuple[str, ...] = ()
    """Strings that end it, matched on decoded text; they stay in its text."""


@dataclass(frozen=True, slots=True)
class Action:
    """The kind and size of one edge of the tree: where a continuation is cut."""

    kind: ActionKind = "step"
    """A step up to a delimiter, one token (with `expand: step` only), a chunk of so many tokens, or `refine`: a whole
    answer, below which better ones are drawn, given it and the feedback on it (`mcts` only)."""
    stop: tuple[str, ...] = ("\n",)
    """`step`: strings that end a step, each of 1 to 128 characters, matched on decoded text."""
    max_tokens: int = param(16, low=1, high=4096)
    """`step`: cap on the tokens of one step. `chunk`: its exact size. `token`: ignored (always 1)."""
    template: str = field(default="", metadata=OMITTED)
    """`refine`: words in which a better answer is asked for. `{feedback}`, `{answer}` and `{prompt}` stand for what
    they name. Left out of a request, those of the release, of the task, or the server's own."""


MOST_SIMULATIONS = 100_000
OWN_POLICY = "policy"
"""Name of the policy that a search has if it names none: on a server the one served, to a trainer the student's own."""


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The budget: whichever limit is met first ends the search. `None` means no such limit."""

    simulations: int = param(0, low=1, high=MOST_SIMULATIONS)
    """Simulations; one is an answer under `best_of_n` and `self_consistency`. Left out, 64 if nothing else limits the
    search, else the most that may be asked for, so that only the limits that were given end it."""
    tokens: int | None = param(None, low=1, high=10_000_000)
    """Generated tokens, merged duplicates and aborted draws included; at least `sampling.max_tokens`."""
    seconds: float | None = param(None, low=0.001, high=86_400)
    """Seconds from the search's own start."""
    nodes: int | None = param(None, low=1, high=1_000_000)
    """Nodes of the tree, the root left out."""

    def __post_init__(self) -> None:
        if self.simulations == 0:
            alone = self.tokens is self.seconds is self.nodes is None
            object.__setattr__(self, "simulations", 64 if alone else MOST_SIMULATIONS)


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Every parameter of a search. `params.search_params` builds one with the algorithm's own defaults."""

    algorithm: str = "mcts"
    """The search algorithm."""
    width: int = param(4, low=1, high=64)
    """Draws of one expansion; of `token` actions, the likeliest. Under `expand: path` the first simulation draws as
    many answers, or fewer on a clock, as with `parallel`; each later expansion draws one. `gumbel`: with `expand: step`
    only."""
    parallel: int = param(8, low=1, high=256)
    """Simulations in flight in this tree, at most; fewer if `budget.seconds` is set (a search on a clock) and others
    on a clock use the policy too."""
    max_depth: int = param(32, low=1, high=4096)
    """Edges below the prompt; a deeper unfinished answer is `truncated`, with value 0. Left out of a request, it is
    `sampling.max_tokens`, since a step may be one token; of chunks, as many as such an answer has."""
    action: Action = field(default_factory=Action)
    """The kind and size of one edge of the tree."""
    expand: Expand = "path"
    """Extent of one draw: one step, or a path to the end of the answer."""
    widen: bool = param(False, needs=("expand", ("step",)))
    """"Draw afresh here" is an arm at every node, as it always is under `expand: path`."""
    select: Select = "thompson"
    """Rule that chooses the next child."""
    prior: Prior = param("count", needs=("select", ("puct",)))
    """P of a child from how often it was drawn (unbiased), or a softmax of mean or summed log-probabilities. Not with
    `token` actions, whose exact probabilities are P."""
    prior_temperature: float = param(
        1.0, low=0.01, high=100, needs=("prior", ("mean_logprob", "sum_logprob"))
    )
    """Temperature of that softmax; above 1 is flatter."""
    leaf: Leaf = param("value", needs=("expand", ("step",)))
    """Value that a new leaf backs up: the model's, a rollout's, or both mixed."""
    rollout_weight: float = param(0.5, low=0, high=1, needs=("leaf", ("mixed",)))
    """Share of the rollout: rollout_weight · rollout + (1 - rollout_weight) · value is backed up."""
    grader: Grader = "model"
    """Judge of complete answers: the value model (the scorer), the task's verifier, both `mixed`, or the policy's own
    confidence, which judges unfinished steps too and needs no model beside the policy. `confidence` is the default
    without a value model."""
    verifier_weight: float = param(0.5, low=0, high=1, needs=("grader", ("mixed",)), omitted=True)
    """Share of the verifier: a complete answer is worth verifier_weight · its verdict + (1 - verifier_weight) · the
    value model's value."""
    answer: AnswerRule = "orm_vote"
    """Rule that chooses the final answer; `most_visited` with `mcts`, `gumbel` and `rap` only."""
    schedule: Schedule = "continuous"
    """Simulations land as they come, or in waves, which makes a search repeatable."""
    policies: tuple[str, ...] = field(default=(), metadata=OMITTED)
    """Names of the policies that draw, at most 8: `policy` is the one served, others are the operator's. A bandit
    learns which of them helps on this problem. None named: the one served, alone."""
    commit: Commit = "root"
    """The search stays at the root, or commits to one step after another."""
    early_stop: EarlyStop = "off"
    """When a settled search ends before its budget: no draw to come can change the lead (`unbeatable`), the lead is
    probably real (`posterior`; both need an answer rule that counts votes), or the verifier accepted an answer
    (`verified`, which needs `grader: verifier`)."""
    early_stop_threshold: float = param(0.95, low=0.5, high=1, needs=("early_stop", ("posterior",)))
    """Probability at which the answer is settled."""
    c_init: float = param(1.25, low=0, high=100, needs=("select", ("puct",)))
    """PUCT exploration constant (AlphaZero pseudocode's pb_c_init)."""
    c_base: float = param(19652.0, low=1, high=1e9, needs=("select", ("puct",)))
    """PUCT exploration growth (AlphaZero pseudocode's pb_c_base)."""
    kappa: float = param(2.0, low=0.01, high=1000, needs=("select", ("thompson",)))
    """Pseudo-visits that an arm's model value counts for; with `kappa_growth`, two steps before the end."""
    kappa_growth: float | None = param(
        None, low=1.01, high=100, needs=("select", ("thompson",)), omitted=True
    )
    """Factor by which the model value counts for more with each step that is left to the end: nothing one step before
    it, `kappa` two steps before it. `None`: the same everywhere."""
    replacement: bool = param(True, needs=("select", ("thompson",)), omitted=True)
    """`false` draws without replacement: the first action of a fresh draw is none of those that are known at its node,
    and a beginning that it has in common with them is not written again. Only policies on the server's own engines draw
    so, at a temperature above 0, with `top_p` 1 and `top_k` 0. Other policies, and nodes where less than 1 % is new,
    draw with replacement. `orm_vote` then counts an answer by its share of the policy's draws; rules that count how
    often it was drawn are refused."""
    abandon: bool = param(False, needs=("select", ("thompson",)), omitted=True)
    """A path is judged after every step, and given up if the tokens that it still needs would bring
    more if they began another: `abandon_below` says how much more."""
    abandon_below: float = param(1.0, low=0.001, high=1, needs=("abandon", (True,)), omitted=True)
    """A path is given up if the tokens that it still needs would bring less than this share of what
    they would bring in a fresh answer. 1 trusts the values; a model that errs on whole problems, and
    gives up right paths there, wants less."""
    tau: float = param(0.0, low=0, high=100, needs=("commit", ("step",)))
    """A step is committed to with probability ~ N^(1/tau), N its visits; 0 takes the most visited."""
    dirichlet_alpha: float = param(0.3, low=0.001, high=100, needs=("select", ("puct",)))
    """Concentration of the root's Dirichlet noise; needs a `dirichlet_fraction` above 0."""
    dirichlet_fraction: float = param(0.0, low=0, high=1, needs=("select", ("puct",)))
    """Share of Dirichlet noise in the root's priors, for collecting data; 0 is none."""
    considered: int = param(8, low=1, high=256)
    """`gumbel`: root actions that Sequential Halving starts from, which drops the worse half again and again."""
    c_visit: float = param(50.0, low=0, high=10_000)
    """`gumbel`: see `c_scale`."""
    c_scale: float = param(1.0, low=0, high=100)
    """`gumbel`: weight of values beside log-priors; σ(q) = (c_visit + max N) · c_scale · q is added to ln P (q: mean
    value, N: visits)."""
    gumbel_scale: float = param(0.0, low=0, high=100)
    """Scale of the root's Gumbel noise: 0 when serving, 1 when collecting."""
    beam_width: int = param(4, low=1, high=256)
    """`beam`: nodes kept at each depth. `dvts`: independent subtrees. `particle`: particles."""
    threshold: float = param(0.1, low=0, high=1)
    """Children whose value is below it are pruned."""
    budget: BudgetLimits = field(default_factory=BudgetLimits)
    """Limits that end the search."""


@dataclass(frozen=True, slots=True)
class UsedDefaults:
    """Search defaults that a search has used, since its request did not say."""

    source: str
    """The release that carries them, by id; `settings` if the operator's file stands in their place."""
    search: Mapping[str, Any]
    """Fields of `search`, as a request would have named them."""
    sampling: Mapping[str, Any]
    """Fields of `sampling`."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The place in its parent tree at which a tree was branched off. The tree's prompt is the parent's prompt and the
    parent's answer as far as that place."""

    node: int
    """The node of the parent tree that this one's root stands for."""
    text: str
    """The answer as far as that node, from the first prompt of all; it opens every answer of this tree."""
    tokens: int
    """Tokens at the end of this tree's prompt that belong to that answer. They cost this search nothing."""


@dataclass(frozen=True, slots=True)
class Hurdle:
    """The least value with which an unfinished answer is written on: what the tokens that it still needs would bring if
    they were spent on answers drawn afresh, or a share of that. (The marginal value theorem: leave once the rate of
    gain here falls to the average rate; Charnov 1976.)"""

    rate: float
    """Value of an answer drawn afresh, or the share of it that is asked for, over the tokens that it takes."""
    mean_length: float
    """Tokens that an answer is expected to have: their mean, once one is complete."""

    def at(self, length: int) -> float:
        """The value, in [0, 1], below which an answer of `length` tokens so far is given up."""
        return self.rate * max(0.0, self.mean_length - length)


@dataclass(frozen=True, slots=True)
class Departure:
    """The beginning of a draw that is to be new, and what must not come next (`search.departures`)."""

    tokens: tuple[int, ...]
    """Taken over from what is known: neither drawn nor paid for."""
    logprobs: tuple[float, ...]
    """The policy's log-probability of each."""
    barred: tuple[int, ...]
    """Tokens that must not come next; at least one."""
    mass: float
    """The policy's probability of these, in (0, 1)."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One continuation sampled from the policy."""

    token_ids: tuple[int, ...]
    """The end token included, if the model wrote it."""
    text: str
    """The decoded text that these tokens add to the prefix; the end token adds none."""
    logprobs: tuple[float, ...]
    """Natural log of each token's probability under the distribution that was really sampled from (temperature and
    truncation included; a `Departure` is not taken off). Same length as `token_ids`. Greedy draws report those of
    temperature 1."""
    ends: tuple[int, ...]
    """`ends[i]`: characters of `text` decoded once token i is in. Same length as `token_ids`, rising."""
    finish: Finish
    release: str
    """Id of the release (one version of the model's weights) that sampled it."""
    values: tuple[float | None, ...] = ()
    """`values[i]`: the expected outcome, in [0, 1], of the answer as far as token i, if the policy judged it while it
    wrote. Same length as `token_ids`, or empty from a policy that does not judge."""
    policy: str = ""
    """Name of the policy that drew it, if the search names several; the search itself writes it here."""
    taken: int = 0
    """Tokens at its beginning that were not drawn, but taken over from a `Departure`."""


class State(tuple[int, ...]):
    """Token ids of a prompt and the answer so far, which also say where the parts of both end.

    A scorer that cares only for the tokens reads it as any other sequence of them; equal tokens are equal states."""

    ends: tuple[int, ...]
    """Rising positions: the end of the prompt, then the end of each action of the answer; the last is the length."""

    def __new__(cls, tokens: Iterable[int], ends: Sequence[int]) -> State:
        state = super().__new__(cls, tokens)
        state.ends = tuple(ends)
        return state


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's judgement of one sequence."""

    value: float
    """The expected outcome, in [0, 1]."""
    release: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verifier's judgement of one complete answer."""

    outcome: float
    """In [0, 1]; 1 is right."""
    reason: str
    """One line for people."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The request to better a complete answer: what the policy is given when it draws another from it."""

    feedback: str = ""
    """Comment on the answer, in the words that the policy gets to see."""
    prompt: tuple[int, ...] = ()
    """Token ids that better answers are drawn after, in place of the tree's prompt; none if `closed`."""
    shortened: bool = False
    """The answer was shown without its middle, since all of it left no room in the model's context."""
    closed: Closed | None = None
    """Why nothing can be drawn; `None` if it can."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One distinct final answer of a tree."""

    node: int
    """Id of the node that ends it."""
    text: str
    """The whole answer, the prompt left out."""
    final: str | None
    """The task's canonical form; `None` if the text holds no answer."""
    value: float | None
    """The value model's estimate of this text, in [0, 1], or the policy's confidence if that is the `grader`; `None`
    if neither judged it."""
    visits: int
    """Backups through the node that ends it."""
    votes: float
    """Share of the answer rule's weight that this answer got, in [0, 1]."""
    outcome: float | None = None
    """The verdict that the search itself had, in [0, 1]; `None` if it asked no verifier."""
    outcome_source: OutcomeSource | None = None
    """Who gave it."""


@dataclass(frozen=True, slots=True)
class AnswerVerdict:
    """The task's verifier on the chosen answer once the search has ended. The search never saw it."""

    outcome: float | None
    """In [0, 1]; 1 is right. `None`: the verifier failed, and `reason` says how."""
    reason: str
    """One line for people."""
    source: OutcomeSource = "verifier"
    """Who says so."""


@dataclass(frozen=True, slots=True)
class PolicyUsage:
    """The cost of one of a search's policies, and what it brought."""

    completion_tokens: int = 0
    """Tokens that it generated, merged duplicates and aborted draws included."""
    draws: int = 0
    """Draws of it that landed."""
    value: float | None = None
    """Mean leaf value of these draws, in [0, 1]: the share that is right, if the verifier grades. `None`: nothing but
    a policy's own confidence has judged them."""
    closed: str | None = None
    """Why it was asked no more: the failure. `None`: it drew to the end."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of a search."""

    prompt_tokens: int = 0
    """Tokens of the prompt, of those that policies have in its place, and of every prompt that asked for a better
    answer, each counted once."""
    completion_tokens: int = 0
    """Every generated token: merged duplicates, aborted draws and the final rollout too, which completes an answer if
    the search finds none."""
    scored_sequences: int = 0
    """Sequences that scorers were asked about, each of several counted. Values that a policy gives with its draws cost
    none."""
    grading_failures: int = 0
    """Complete answers on which the verifier itself failed; they count for nothing."""
    simulations: int = 0
    """Simulations that ended."""
    nodes: int = 0
    """Nodes of the tree, the root included."""
    seconds: float = 0.0
    """From the search's start to its end, waiting for admission left out."""
    by_policy: Mapping[str, PolicyUsage] | None = field(default=None, metadata=OMITTED)
    """The part of each policy, by name; `None` if the search names none."""


@dataclass(frozen=True, slots=True)
class SearchPart:
    """The search that another one goes on from."""

    tree: str
    """Id of its tree. The nodes of that tree are the first of the longer one, with the same ids."""
    usage: Usage
    """Its cost, which the longer search counts as its own."""


@dataclass(frozen=True, slots=True)
class SearchState:
    """The state of a search beside its tree, to be taken on later: see `ramify.search.state`."""

    random_words: int
    """32-bit words that it has drawn from its own generator."""
    simulations: int
    """Simulations begun."""
    fraction: float
    """The largest spent/limit over its limits, in [0, 1]."""
    pace: float
    """Seconds a token of its fastest draw; 0 before one has landed."""
    algorithm: Mapping[str, Any]
    """Attributes of the algorithm; a node is `{"node": id}`, a mapping `{"items": [[key, value], …]}`."""
    ended_plans: int
    """Plans that have ended since the search last committed to a step or began a fruitful round."""
    fruitful_plans: tuple[int, ...]
    """The numbers of those that brought a new node, as far back as `TreeBuilder.exhausted` looks."""
    round_began: int
    """Nodes of the tree when the algorithm last began anew on it (a round: `Algorithm.rounds`)."""
    plans: tuple[Mapping[str, Any], ...]
    """Plans that were sent and never landed, in the order in which they were sent; a node is its id."""
    policies: Mapping[str, Any] | None
    """Draws and rewards of each policy, for the bandit between several; `None` if the search names none."""
