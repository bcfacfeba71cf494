"""The logged tree, field by field, as types. Made by `make client-types` of the records of the server."""
# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Action(TypedDict):
    """The kind and size of one edge of the tree: where a continuation is cut."""

    kind: Literal["step", "token", "chunk", "refine"]
    """A step up to a delimiter, one token (with `expand: step` only), a chunk of so many tokens, or `refine`:
    a whole answer, below which better ones are drawn, given it and the feedback on it (`mcts` only)."""
    stop: list[str]
    """`step`: strings that end a step, each of 1 to 128 characters, matched on decoded text."""
    max_tokens: int
    """`step`: cap on the tokens of one step. `chunk`: its exact size. `token`: ignored (always 1)."""
    template: NotRequired[str]
    """`refine`: words in which a better answer is asked for. `{feedback}`, `{answer}` and `{prompt}` stand
    for what they name. Left out of a request, those of the release, of the task, or the server's own."""


class Answer(TypedDict):
    """One distinct final answer of a tree."""

    node: int
    """Id of the node that ends it."""
    text: str
    """The whole answer, the prompt left out."""
    final: str | None
    """The task's canonical form; None if the text holds no answer."""
    value: float | None
    """The value model's estimate of this text, in [0, 1], or the policy's confidence if that is the `grader`;
    None if neither judged it."""
    visits: int
    """Backups through the node that ends it."""
    votes: float
    """Share of the answer rule's weight that this answer got, in [0, 1]."""
    outcome: float | None
    """The verdict that the search itself had, in [0, 1]; None if it asked no verifier."""
    outcome_source: Literal["verifier", "human"] | None
    """Who gave it."""


class AnswerVerdict(TypedDict):
    """The task's verifier on the chosen answer once the search has ended. The search never saw it."""

    outcome: float | None
    """In [0, 1]; 1 is right. None: the verifier failed, and `reason` says how."""
    reason: str
    """One line for people."""
    source: Literal["verifier", "human"]
    """Who says so."""


class Completion(TypedDict):
    """One complete answer drawn, in the order of landing."""

    node: int
    """Id of the node that ends it."""
    simulation: int
    """The simulation that drew it, from 1; 0 for the final rollout."""
    tokens: int
    """Tokens the whole search had generated once it had landed."""


class Limits(TypedDict):
    """The budget: whichever limit is met first ends the search. `None` means no such limit."""

    simulations: int
    """Simulations; one is an answer under `best_of_n` and `self_consistency`. Left out, 64 if nothing else
    limits the search, else the most that may be asked for, so that only the limits that were given end it."""
    tokens: int | None
    """Generated tokens, merged duplicates and aborted draws included; at least `sampling.max_tokens`."""
    seconds: float | None
    """Seconds from the search's own start."""
    nodes: int | None
    """Nodes of the tree, the root left out."""


class Node(TypedDict):
    """One action and everything known of the text that it ends."""

    id: int
    """Index in `Tree.nodes`; the root, which stands for the prompt, is 0."""
    parent: int | None
    """Id of the node above; None at the root."""
    depth: int
    """Edges from the root."""
    tokens: list[int]
    """The action's token ids; none at the root."""
    logprobs: list[float]
    """Behaviour log-probability of each of them."""
    text: str
    """The text they add."""
    length: int
    """Tokens of its answer up to here, this action included."""
    prior: float
    """P, in [0, 1]; siblings sum to 1."""
    multiplicity: int
    """m: how many policy draws at the parent took this action."""
    value: float | None
    """v: the value model's estimate, in [0, 1], or the weighted mean of several scorers, or the policy's
    confidence if that is the `grader`; None if none was asked."""
    visits: int
    """N: backups through here."""
    value_sum: float
    """W: sum of what they carried."""
    in_flight: int
    """O: simulations now below here. 0 in a finished tree."""
    fresh_visits: int
    """Backups of what was drawn from here: one for each path through here, or for each expansion by one
    step."""
    fresh_value_sum: float
    """Sum of what they carried."""
    expansions: int
    """Expansions begun here."""
    expanding: int
    """Expansions from here now in flight. 0 in a finished tree."""
    expanded: bool
    """An expansion from here has landed."""
    pruned: bool
    """Given up by the algorithm (`beam`, `dvts`, `dfs`, `particle`). What a safety scorer has closed says so
    in `terminal`."""
    terminal: Literal["eos", "stop", "truncated", "pruned"] | None
    """Reason for which an answer ends here; None if it goes on."""
    outcome: float | None
    """A verifier's or a person's verdict, in [0, 1]; never a model's."""
    outcome_source: Literal["verifier", "human"] | None
    """Who gave `outcome`."""
    release: str
    """Release whose weights sampled it."""
    simulation: int
    """The simulation that made it, from 1; 0 at the root and in the final rollout."""
    tokens_spent: int
    """Generated tokens that this edge cost: the action's tokens times its multiplicity, less those taken over
    from siblings (`replacement`). Of enumerated next tokens only the likeliest cost one."""
    children: list[int]
    """Ids of the nodes below, in the order in which they were made."""
    scores: NotRequired[dict[str, Any] | None]
    """Value that each scorer gave it, in [0, 1], by its name in the settings; one that has no name is left
    out."""
    pruned_by: NotRequired[str | None]
    """The safety scorer that has closed the branch here; None unless `terminal` is `pruned`."""
    revision: NotRequired[Revision | None]
    """`refine`: what the answers below were drawn from, each to better the one that ends here; None if none
    was."""
    policy: NotRequired[str | None]
    """Name of the policy that drew it first, whose log-probabilities these are; None if the search names
    none."""
    drawn_by: NotRequired[dict[str, Any] | None]
    """m by policy, if more than one took this action."""
    stands_for: NotRequired[float | None]
    """In a finished tree without `replacement`: how many draws with replacement it stands for beside its
    siblings (`departures.stand_for`)."""


class Origin(TypedDict):
    """The place in its parent tree at which a tree was branched off. The tree's prompt is the parent's prompt
    and the parent's answer as far as that place."""

    node: int
    """The node of the parent tree that this one's root stands for."""
    text: str
    """The answer as far as that node, from the first prompt of all; it opens every answer of this tree."""
    tokens: int
    """Tokens at the end of this tree's prompt that belong to that answer. They cost this search nothing."""


class PolicyUsage(TypedDict):
    """The cost of one of a search's policies, and what it brought."""

    completion_tokens: int
    """Tokens that it generated, merged duplicates and aborted draws included."""
    draws: int
    """Draws of it that landed."""
    value: float | None
    """Mean leaf value of these draws, in [0, 1]: the share that is right, if the verifier grades. None:
    nothing but a policy's own confidence has judged them."""
    closed: str | None
    """Why it was asked no more: the failure. None: it drew to the end."""


class Revision(TypedDict):
    """The request to better a complete answer: what the policy is given when it draws another from it."""

    feedback: str
    """Comment on the answer, in the words that the policy gets to see."""
    prompt: list[int]
    """Token ids that better answers are drawn after, in place of the tree's prompt; none if `closed`."""
    shortened: bool
    """The answer was shown without its middle, since all of it left no room in the model's context."""
    closed: Literal["context", "feedback"] | None
    """Why nothing can be drawn; None if it can."""


class Sampling(TypedDict):
    """Parameters with which one answer is sampled, or one continuation of it."""

    temperature: float
    """0 is greedy; otherwise logits are divided by it. [0, 2]"""
    top_p: float
    """Nucleus mass, (0, 1]."""
    top_k: int
    """Most likely tokens kept; 0 keeps all."""
    max_tokens: int
    """Cap on the tokens of one whole answer, or of one continuation if that is what is sampled. At least
    1."""
    stop: list[str]
    """Strings that end it, matched on decoded text; they stay in its text."""


class SearchParams(TypedDict):
    """Every parameter of a search. `params.search_params` builds one with the algorithm's own defaults."""

    algorithm: Literal["mcts", "gumbel", "rap", "beam", "dvts", "dfs", "particle", "best_of_n", "self_consistency"]
    """The search algorithm."""
    width: int
    """Draws of one expansion; of `token` actions, the likeliest. Under `expand: path` the first simulation
    draws as many answers, or fewer on a clock, as with `parallel`; each later expansion draws one. `gumbel`:
    with `expand: step` only."""
    parallel: int
    """Simulations in flight in this tree, at most; fewer if `budget.seconds` is set (a search on a clock) and
    others on a clock use the policy too."""
    max_depth: int
    """Edges below the prompt; a deeper unfinished answer is `truncated`, with value 0. Left out of a request,
    it is `sampling.max_tokens`, since a step may be one token; of chunks, as many as such an answer has."""
    action: Action
    """The kind and size of one edge of the tree."""
    expand: Literal["step", "path"]
    """Extent of one draw: one step, or a path to the end of the answer."""
    widen: bool
    """"Draw afresh here" is an arm at every node, as it always is under `expand: path`."""
    select: Literal["puct", "thompson"]
    """Rule that chooses the next child."""
    prior: Literal["count", "mean_logprob", "sum_logprob"]
    """P of a child from how often it was drawn (unbiased), or a softmax of mean or summed log-probabilities.
    Not with `token` actions, whose exact probabilities are P."""
    prior_temperature: float
    """Temperature of that softmax; above 1 is flatter."""
    leaf: Literal["value", "rollout", "mixed"]
    """Value that a new leaf backs up: the model's, a rollout's, or both mixed."""
    rollout_weight: float
    """Share of the rollout: rollout_weight · rollout + (1 - rollout_weight) · value is backed up."""
    grader: Literal["model", "verifier", "mixed", "confidence"]
    """Judge of complete answers: the value model (the scorer), the task's verifier, both `mixed`, or the
    policy's own confidence, which judges unfinished steps too and needs no model beside the policy.
    `confidence` is the default without a value model."""
    verifier_weight: NotRequired[float]
    """Share of the verifier: a complete answer is worth verifier_weight · its verdict + (1 - verifier_weight)
    · the value model's value."""
    answer: Literal["majority", "orm_max", "orm_vote", "most_visited"]
    """Rule that chooses the final answer; `most_visited` with `mcts`, `gumbel` and `rap` only."""
    schedule: Literal["continuous", "waves"]
    """Simulations land as they come, or in waves, which makes a search repeatable."""
    policies: NotRequired[list[str]]
    """Names of the policies that draw, at most 8: `policy` is the one served, others are the operator's. A
    bandit learns which of them helps on this problem. None named: the one served, alone."""
    commit: Literal["root", "step"]
    """The search stays at the root, or commits to one step after another."""
    early_stop: Literal["off", "unbeatable", "posterior", "verified"]
    """When a settled search ends before its budget: no draw to come can change the lead (`unbeatable`), the
    lead is probably real (`posterior`; both need an answer rule that counts votes), or the verifier accepted
    an answer (`verified`, which needs `grader: verifier`)."""
    early_stop_threshold: float
    """Probability at which the answer is settled."""
    c_init: float
    """PUCT exploration constant (AlphaZero pseudocode's pb_c_init)."""
    c_base: float
    """PUCT exploration growth (AlphaZero pseudocode's pb_c_base)."""
    kappa: float
    """Pseudo-visits that an arm's model value counts for; with `kappa_growth`, two steps before the end."""
    kappa_growth: NotRequired[float | None]
    """Factor by which the model value counts for more with each step that is left to the end: nothing one
    step before it, `kappa` two steps before it. None: the same everywhere."""
    replacement: NotRequired[bool]
    """`false` draws without replacement: the first action of a fresh draw is none of those that are known at
    its node, and a beginning that it has in common with them is not written again. Only policies on the
    server's own engines draw so, at a temperature above 0, with `top_p` 1 and `top_k` 0. Other policies, and
    nodes where less than 1 % is new, draw with replacement. `orm_vote` then counts an answer by its share of
    the policy's draws; rules that count how often it was drawn are refused."""
    abandon: NotRequired[bool]
    """A path is judged after every step, and given up if the tokens that it still needs would bring more if
    they began another: `abandon_below` says how much more."""
    abandon_below: NotRequired[float]
    """A path is given up if the tokens that it still needs would bring less than this share of what they
    would bring in a fresh answer. 1 trusts the values; a model that errs on whole problems, and gives up
    right paths there, wants less."""
    tau: float
    """A step is committed to with probability ~ N^(1/tau), N its visits; 0 takes the most visited."""
    dirichlet_alpha: float
    """Concentration of the root's Dirichlet noise; needs a `dirichlet_fraction` above 0."""
    dirichlet_fraction: float
    """Share of Dirichlet noise in the root's priors, for collecting data; 0 is none."""
    considered: int
    """`gumbel`: root actions that Sequential Halving starts from, which drops the worse half again and
    again."""
    c_visit: float
    """`gumbel`: see `c_scale`."""
    c_scale: float
    """`gumbel`: weight of values beside log-priors; σ(q) = (c_visit + max N) · c_scale · q is added to ln P
    (q: mean value, N: visits)."""
    gumbel_scale: float
    """Scale of the root's Gumbel noise: 0 when serving, 1 when collecting."""
    beam_width: int
    """`beam`: nodes kept at each depth. `dvts`: independent subtrees. `particle`: particles."""
    threshold: float
    """Children whose value is below it are pruned."""
    budget: Limits
    """Limits that end the search."""


class SearchPart(TypedDict):
    """The search that another one goes on from."""

    tree: str
    """Id of its tree. The nodes of that tree are the first of the longer one, with the same ids."""
    usage: Usage
    """Its cost, which the longer search counts as its own."""


class SearchState(TypedDict):
    """The state of a search beside its tree, to be taken on later: see `ramify.search.state`."""

    random_words: int
    """32-bit words that it has drawn from its own generator."""
    simulations: int
    """Simulations begun."""
    fraction: float
    """The largest spent/limit over its limits, in [0, 1]."""
    pace: float
    """Seconds a token of its fastest draw; 0 before one has landed."""
    algorithm: dict[str, Any]
    """Attributes of the algorithm; a node is `{"node": id}`, a mapping `{"items": [[key, value], …]}`."""
    ended_plans: int
    """Plans that have ended since the search last committed to a step or began a fruitful round."""
    fruitful_plans: list[int]
    """The numbers of those that brought a new node, as far back as `TreeBuilder.exhausted` looks."""
    round_began: int
    """Nodes of the tree when the algorithm last began anew on it (a round: `Algorithm.rounds`)."""
    plans: list[dict[str, Any]]
    """Plans that were sent and never landed, in the order in which they were sent; a node is its id."""
    policies: dict[str, Any] | None
    """Draws and rewards of each policy, for the bandit between several; None if the search names none."""


class Usage(TypedDict):
    """The cost of a search."""

    prompt_tokens: int
    """Tokens of the prompt, of those that policies have in its place, and of every prompt that asked for a
    better answer, each counted once."""
    completion_tokens: int
    """Every generated token: merged duplicates, aborted draws and the final rollout too, which completes an
    answer if the search finds none."""
    scored_sequences: int
    """Sequences that scorers were asked about, each of several counted. Values that a policy gives with its
    draws cost none."""
    grading_failures: int
    """Complete answers on which the verifier itself failed; they count for nothing."""
    simulations: int
    """Simulations that ended."""
    nodes: int
    """Nodes of the tree, the root included."""
    seconds: float
    """From the search's start to its end, waiting for admission left out."""
    by_policy: NotRequired[dict[str, Any] | None]
    """The part of each policy, by name; None if the search names none."""


class UsedDefaults(TypedDict):
    """Search defaults that a search has used, since its request did not say."""

    source: str
    """The release that carries them, by id; `settings` if the operator's file stands in their place."""
    search: dict[str, Any]
    """Fields of `search`, as a request would have named them."""
    sampling: dict[str, Any]
    """Fields of `sampling`."""


class Tree(TypedDict):
    """A search and its result: what was asked, what grew, what was spent, how it ended."""

    id: str
    """`tree_` and a UUIDv7 in hex, when the tree is to be logged."""
    created_at: float
    """Unix seconds."""
    model: str
    """Name of the model that was asked."""
    prompt: str
    """The text that was continued; a conversation as its chat template writes it."""
    prompt_tokens: list[int]
    """Its token ids, as the policy was given them."""
    prompts: NotRequired[dict[str, Any] | None]
    """By policy, the token ids that its draws follow in place of `prompt_tokens`, if it has a prompt of its
    own."""
    params: SearchParams
    """Every parameter of the search, defaults filled in."""
    sampling: Sampling
    """Parameters with which answers were sampled."""
    seed: int
    """Origin of every random seed of the search."""
    defaults: NotRequired[UsedDefaults | None]
    """Search defaults that `params` and `sampling` were filled in from; None: none."""
    task: str | None
    """Name of the task that judges answers; `none` if nobody can."""
    problem: dict[str, Any] | None
    """The task's problem, in the task's own fields."""
    train: bool
    """The asker allows training on it."""
    nodes: list[Node]
    """By id; parents stand before their children."""
    completions: list[Completion]
    """Complete answers in the order in which they were drawn, repeated ones too."""
    committed: list[int]
    """`commit: step`: the nodes committed, in order."""
    usage: Usage
    """Cost of the search."""
    status: Literal["running", "complete", "cancelled", "deadline", "drained", "engine_dead", "failed", "interrupted"]
    """State at its end; `running` is never logged."""
    stop_reason: Literal["budget.simulations", "budget.tokens", "budget.seconds", "budget.nodes", "budget.shared", "exhausted", "pruned", "early", "client", "disconnect", "deadline", "drain", "error", "crash"] | None
    """Which limit or event ended it."""
    error: str | None
    """The failure, if it did not end well."""
    answer: Answer | None
    """The answer that the search gives: of complete ones, else of truncated texts; None if there is
    neither."""
    candidates: list[Answer]
    """Distinct final answers, best first; `answer` is the first."""
    ungrouped: NotRequired[int]
    """Complete answers that vote by their text alone: the task could not tell in time which others they
    equal."""
    verdict: NotRequired[AnswerVerdict | None]
    """The verifier's word on `answer`, given after the search; None if the task has no verifier or there is
    no answer. Labels for training are made from verifiers and people, never from a model's values."""
    parent_tree: str | None
    """The tree that this one was branched from."""
    origin: NotRequired[Origin | None]
    """The place in it; None exactly if `parent_tree` is."""
    batch: NotRequired[str | None]
    """The batch whose budget it shared, if it did."""
    conversation: NotRequired[dict[str, Any] | None]
    """`refine`: the `messages` that `prompt` was made of, and the variables of the chat `template`: requests
    for better answers follow them. None if the prompt is a text."""
    continues: NotRequired[SearchPart | None]
    """The search that this one goes on from, if it does: its draws, its cost and its statistics are the first
    part of this one's."""
    search_state: NotRequired[SearchState | None]
    """The search's own state, to be taken on later; None if it cannot be."""
    schema_version: Literal[1]
    """Version of this schema; raised by any change other than a field that may be left out."""
