"""What crosses the border of a search: parameters going in, samples and judgements coming back, answers out.

Everything here is frozen. Token ids are the engine's own; text is only ever read, never turned back into tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Algorithm = Literal[
    "mcts", "gumbel", "rap", "beam", "dvts", "dfs", "particle", "best_of_n", "self_consistency"
]
ActionKind = Literal["step", "token", "chunk"]
Expand = Literal["step", "path"]
Select = Literal["puct", "thompson"]
Prior = Literal["count", "mean_logprob", "sum_logprob"]
Leaf = Literal["value", "rollout", "mixed"]
Grader = Literal["model", "verifier"]
AnswerRule = Literal["majority", "orm_max", "orm_vote", "most_visited"]
Schedule = Literal["continuous", "waves"]
Commit = Literal["root", "step"]
EarlyStop = Literal["off", "unbeatable", "posterior", "verified"]
OutcomeSource = Literal["verifier", "human"]

Finish = Literal["eos", "stop", "length"]
"""Why the engine ended a sample: the model's end token, a stop string, or the token cap."""

Terminal = Literal["eos", "stop", "truncated"]
"""Why an answer ended at a node: the model's end token, an answer's stop string, or a depth or length cap."""

Status = Literal["running", "complete", "cancelled", "deadline", "drained", "engine_dead", "failed"]
StopReason = Literal[
    "budget.simulations",
    "budget.tokens",
    "budget.seconds",
    "budget.nodes",
    "exhausted",
    "early",
    "client",
    "disconnect",
    "deadline",
    "drain",
    "error",
]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is sampled."""

    temperature: float = 1.0
    """0 is greedy; otherwise logits are divided by it. [0, 2]"""
    top_p: float = 1.0
    """Nucleus mass, (0, 1]."""
    top_k: int = 0
    """Most likely tokens kept; 0 keeps all."""
    max_tokens: int = 64
    """Cap on the tokens of one whole answer, from the end of the prompt. At least 1."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer (they stay in its text)."""


@dataclass(frozen=True, slots=True)
class Action:
    """What one edge of the tree is."""

    kind: ActionKind = "step"
    """A step up to a delimiter, one token, or a chunk of so many tokens."""
    stop: tuple[str, ...] = ("\n",)
    """`step` only: strings that end a step, matched on decoded text."""
    max_tokens: int = 16
    """`step`: cap on one step's tokens. `chunk`: its exact size. `token`: ignored (always 1)."""


MOST_SIMULATIONS = 100_000


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The budget: whichever limit is met first ends the search. `None` means no such limit."""

    simulations: int = 0
    """At least 1. Left out (0), it is 64 if nothing else limits the search, else `MOST_SIMULATIONS`: every search has a
    cap on them, but one that nobody named cuts no search short that has another limit."""
    tokens: int | None = None
    """Generated tokens, merged duplicates and aborted draws included."""
    seconds: float | None = None
    """Seconds from the search's own start."""
    nodes: int | None = None
    """Nodes of the tree, the root left out."""

    def __post_init__(self) -> None:
        if self.simulations == 0:
            alone = self.tokens is self.seconds is self.nodes is None
            object.__setattr__(self, "simulations", 64 if alone else MOST_SIMULATIONS)


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Every parameter of a search. `params.search_params` builds one with the algorithm's own defaults."""

    algorithm: Algorithm = "mcts"
    """The search algorithm."""
    width: int = 4
    """Draws at one expansion: children under `step` (k of the top-k under `token`); under `path` the complete
    answers drawn by simulation 1, every later expansion drawing one."""
    parallel: int = 8
    """Simulations in flight in this tree."""
    max_depth: int = 32
    """Edges below the prompt; a deeper unfinished answer is `truncated`."""
    action: Action = field(default_factory=Action)
    """What one edge of the tree is."""
    expand: Expand = "path"
    """One expansion draws one step, or a path to the end of an answer."""
    widen: bool = False
    """`expand: step`: "draw afresh here" is an arm at every node, as it always is under `path`."""
    select: Select = "thompson"
    """Rule that chooses the next child."""
    prior: Prior = "count"
    """Source of P: draws, or mean or summed log-probabilities."""
    prior_temperature: float = 1.0
    """P is raised to 1 / this and normalised; above 1 is flatter."""
    leaf: Leaf = "value"
    """Value that a new leaf backs up: the model's, a rollout's, or both mixed."""
    rollout_weight: float = 0.5
    """`leaf: mixed` backs up rollout_weight · rollout + (1 - rollout_weight) · value."""
    grader: Grader = "model"
    """Who judges complete answers: the outcome model, or the task's verifier."""
    answer: AnswerRule = "orm_vote"
    """Rule that chooses the final answer."""
    schedule: Schedule = "continuous"
    """Whether simulations land as they come or in waves, which is deterministic."""
    commit: Commit = "root"
    """Whether the search stays at the root or commits to one step after another."""
    early_stop: EarlyStop = "off"
    """When a settled search ends before its budget."""
    early_stop_threshold: float = 0.95
    """Probability at which `posterior` calls the answer settled. [0, 1]"""
    c_init: float = 1.25
    """PUCT exploration constant (AlphaZero pseudocode's pb_c_init)."""
    c_base: float = 19652.0
    """PUCT exploration growth (AlphaZero pseudocode's pb_c_base)."""
    kappa: float = 2.0
    """Thompson: pseudo-visits that an arm's model value counts for; with `kappa_growth`, two steps before the end."""
    kappa_growth: float | None = None
    """Thompson: how much more the value counts for with each step that is left; `None`: the same everywhere."""
    abandon: bool = False
    """Thompson over paths: a draw is judged after every step, and given up where the tokens that it still needs would
    bring more if they began another."""
    tau: float = 0.0
    """`commit: step`: a step is drawn with probability ~ N^(1/tau); 0 takes the most visited."""
    dirichlet_alpha: float = 0.3
    """Concentration of the root's Dirichlet noise."""
    dirichlet_fraction: float = 0.0
    """Share of Dirichlet noise in the root's priors; 0 is none. For data generation."""
    considered: int = 8
    """`gumbel`: m, root actions that Sequential Halving starts from."""
    c_visit: float = 50.0
    """`gumbel`: see `c_scale`."""
    c_scale: float = 1.0
    """`gumbel`: sigma(q) = (c_visit + max N) · c_scale · q."""
    gumbel_scale: float = 0.0
    """`gumbel`: scale of the root's Gumbel noise; 0 when serving, 1 when collecting."""
    beam_width: int = 4
    """`beam`: nodes kept at each depth. `dvts`: independent subtrees. `particle`: particles."""
    threshold: float = 0.1
    """`dfs`: children whose value is below it are pruned. [0, 1]"""
    budget: BudgetLimits = field(default_factory=BudgetLimits)
    """Limits that end the search."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where in its parent tree a tree was branched off: its prompt is the parent's and the answer as far as a node."""

    node: int
    """The node of the parent tree that this one's root stands for."""
    text: str
    """The answer as far as that node, from the first prompt of all; it opens every answer of this tree."""
    tokens: int
    """How many of this tree's prompt tokens are that answer's. They cost this search nothing."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What is asked of the policy in one engine request."""

    n: int
    """Independent continuations."""
    max_tokens: int
    """Cap on each."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    """Strings that end a continuation; matched on decoded text, kept in it."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """One continuation sampled from the policy."""

    token_ids: tuple[int, ...]
    """The end token included, where the model wrote it."""
    text: str
    """The decoded text that these tokens add to the prefix; the end token adds none."""
    logprobs: tuple[float, ...]
    """Natural log of each token's probability under the distribution that was really sampled from (temperature and
    truncation included). Same length as `token_ids`. Greedy draws report those of temperature 1."""
    ends: tuple[int, ...]
    """`ends[i]`: characters of `text` decoded once token i is in. Same length as `token_ids`, rising."""
    finish: Finish
    release: str
    """Id of the release whose weights sampled it."""


@dataclass(frozen=True, slots=True)
class Score:
    """The value model's judgement of one sequence."""

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
class Answer:
    """One distinct final answer of a tree."""

    node: int
    """Id of the node that ends it."""
    text: str
    """The whole answer, the prompt left out."""
    final: str | None
    """The task's canonical form; `None` where the text holds no answer."""
    value: float | None
    """The outcome model's estimate of this text, in [0, 1]; `None` where no model judged it."""
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
class Usage:
    """What a search spent."""

    prompt_tokens: int = 0
    """Tokens of the prompt, counted once."""
    completion_tokens: int = 0
    """Every generated token: merged duplicates, aborted draws and the final rollout too."""
    scored_sequences: int = 0
    """Sequences that the value model judged."""
    grading_failures: int = 0
    """Complete answers on which the verifier itself failed; they count for nothing."""
    simulations: int = 0
    """Simulations that ended."""
    nodes: int = 0
    """Nodes of the tree, the root included."""
    seconds: float = 0.0
    """From the search's start to its end, waiting for admission left out."""
