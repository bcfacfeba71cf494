"""The server's answers, typed and frozen. Fields that a newer server adds are kept, and reached by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from ramify_client.tree import Tree
else:
    Tree = dict[str, Any]
    """Not looked into as it comes: a tree of another schema must not end the reading of a log."""


Item = TypeVar("Item")


class Result(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Listing(Result, Generic[Item]):
    """Everything there is of one kind."""

    data: list[Item]


class Answer(Result):
    text: str
    final: str | None = None
    """The task's canonical form; None if the text holds no answer."""
    value: float | None = None
    """The outcome model's estimate, [0, 1]."""
    visits: int = 0
    votes: float = 0.0
    """Share of the answer rule's weight, [0, 1]."""
    outcome: float | None = None
    """A verifier's or a person's verdict, [0, 1]; never a model's."""
    outcome_source: str | None = None
    node: int
    """The tree's node that ends it."""


class AnswerVerdict(Result):
    """The task verifier's word on the answer, given after the search."""

    outcome: float | None
    """[0, 1]; 1 is right. None: the verifier failed."""
    reason: str
    source: str


class TreeLink(Result):
    id: str
    url: str


class PolicyUsage(Result):
    """The cost of one of a search's policies, and what it brought."""

    completion_tokens: int
    draws: int
    """Draws of it that landed."""
    value: float | None
    """Mean leaf value of these draws, in [0, 1]: the share that is right, if the verifier grades."""
    closed: str | None = None
    """Why it was asked no more; None: it drew to the end."""


class Usage(Result):
    prompt_tokens: int
    completion_tokens: int
    """Every generated token, merged duplicates included."""
    total_tokens: int
    scored_sequences: int
    simulations: int
    nodes: int
    seconds: float
    truncated_answers: int
    """Draws cut by `sampling.max_tokens` or `search.max_depth` before the answer's end; worth 0."""
    pruned_branches: int = 0
    """Draws that safety scorers closed; worth 0."""
    by_policy: dict[str, PolicyUsage] | None = None
    """The part of each policy, by name; None if the search names none."""


class UsedDefaults(Result):
    """Search defaults that a search has used, since its request did not say."""

    source: str
    """The release that carries them, by id; `settings` if the operator's file stands in their place."""
    search: dict[str, Any]
    """Fields of `search`, as a request would have named them."""
    sampling: dict[str, Any]
    """Fields of `sampling`."""


class SearchResult(Result):
    id: str
    created: int
    model: str
    status: str
    """running, complete, cancelled, deadline, drained, engine_dead, failed or interrupted."""
    stop_reason: str | None
    answer: Answer | None
    candidates: list[Answer]
    """Distinct final answers, best first."""
    verdict: AnswerVerdict | None = None
    """On the answer; None while it runs, and if the task has no verifier."""
    defaults: UsedDefaults | None = None
    """Search defaults that were used, since the request did not say; None: none."""
    tree: TreeLink
    continues: str | None = None
    """Id of the search that this one goes on from, whose cost `usage` counts too; None: it goes on from none."""
    release: str
    usage: Usage
    error: str | None = None
    tree_document: Tree | None = None
    """Present if `include_tree` asked for it."""


class BatchUsage(Result):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    scored_sequences: int
    simulations: int
    nodes: int
    seconds: float
    """From the searches' common start to the end of the last."""
    spread: list[int]
    """Generated tokens of each prompt, in order."""


class BatchResult(Result):
    """Prompts that shared a budget."""

    id: str
    created: int
    model: str
    usage: BatchUsage
    results: list[SearchResult]
    """In the order of the prompts."""


class SearchEvent(Result):
    """One event of a streamed search, or of a batch."""

    kind: Literal["started", "progress", "answered", "completed"]
    """`answered`: one prompt of a batch has its result; the last event is `completed`."""
    id: str
    index: int | None = None
    """In a batch, the place of the prompt that it is about; None if it is about the whole."""
    simulations: int | None = None
    tokens: int | None = None
    nodes: int | None = None
    seconds: float | None = None
    answer: Answer | None = None
    """The best so far."""
    result: SearchResult | None = None
    """Present when a search has ended."""


class Values(Result):
    model: str
    release: str
    values: list[float]
    """Expected outcomes, [0, 1], in the order of the continuations."""
    scores: list[dict[str, float]] = []
    """Value that each scorer gave it, safety scorers too, by their names in the settings."""


class TreeSummary(Result):
    seq: int
    id: str
    created: float
    status: str
    model: str
    release: str
    algorithm: str
    task: str | None
    nodes: int
    tokens: int
    value: float | None
    outcome: float | None
    """The latest verdict on the chosen answer, [0, 1]; 1 is right."""
    outcome_source: str | None
    """Who gave it: human or verifier."""
    prompt: str
    answer: str | None


class TreePage(Listing[TreeSummary]):
    """Trees, newest first."""

    has_more: bool
    next_before: int | None


class Feedback(Result):
    seq: int
    id: str
    node: int | None
    answer: str | None
    outcome: float
    source: str
    comment: str
    train: bool


class LoggedTree(Result):
    id: str
    seq: int
    sha256: str
    outcome: float | None
    """The latest verdict on the chosen answer, [0, 1]; 1 is right."""
    outcome_source: str | None
    """Who gave it: human or verifier."""
    tree: Tree
    """The tree as it was logged."""
    feedback: list[Feedback]


class TreeRecord(Result):
    """A line of the log: a tree."""

    seq: int
    kind: Literal["tree"]
    tree_id: str
    key_id: str = ""
    """The API key that asked for it; empty if none was needed."""
    tree: Tree


class FeedbackRecord(Result):
    """A line of the log: a later verdict on an answer of a tree."""

    seq: int
    kind: Literal["outcome"]
    tree_id: str
    key_id: str = ""
    """The API key that gave it; empty if none was needed."""
    outcome: float
    """The verdict, [0, 1]; 1 is right."""
    node: int | None = None
    """The node that ends the answer; None if only its text was given."""
    answer: str | None = None
    """The answer's text, if given."""
    source: str
    """Who says so: human or verifier."""
    comment: str = ""
    train: bool = False
    """True if the trainer may learn from it."""
    created_at: float
    """Unix seconds."""


class CorruptRecord(Result):
    """A line of the log: a row that is not what was written. Count it and go on."""

    seq: int
    kind: Literal["corrupt"]
    tree_id: str
    reason: str
    """The fault of the row, in words."""


LogRecord = Annotated[TreeRecord | FeedbackRecord | CorruptRecord, Field(discriminator="kind")]
"""One line of the log. `seq` is its place."""


class Consumer(Result):
    name: str
    cursor: int
    """The last `seq` that it is done with."""
    version: int
    """The version that the next change has to name."""
    owner: str | None
    key: str = ""
    """The API key that changed it last, and holds the lease if there is one."""
    lease_expires: float | None
    high_water: int
    """The log's last `seq`."""


class Model(Result):
    id: str
    created: int
    root: str
    """The release that is served."""
    search_defaults: list[dict[str, Any]] = []
    """How the model searches if a request does not say: the first entry that covers the budget (docs/search.md)."""
    value: str | None = None
    """The judge of answers: a value `model`, a head on the policy's `trunk`, a `scorer`; None: nothing."""
    remote: bool = False
    """True if another server draws."""
    max_model_len: int


class Release(Result):
    id: str
    state: str
    """available (nothing recorded), candidate, promoted, rejected or failed."""
    active: bool
    parent: str | None
    base: str | None = None
    """The release whose policy its LoRA adapter stands on; `None` if its policy is whole."""
    value: str | None = None
    """The judge of answers: a value `model`, or a head on the policy's `trunk`; None if its files are gone."""
    training_step: int | None
    metrics: dict[str, float]
    figures: dict[str, Any]
    """Its gate's."""
    on_disk: bool


class PastActivation(Result):
    release: str
    at: float
    """Unix seconds."""
    kind: str
    """activate, rollback, or automatic: done by the server itself."""
    note: str


class Releases(Result):
    active: str
    previous: str | None
    """The release that a rollback would go back to."""
    data: list[Release]
    activations: list[PastActivation] = []
    """Newest first."""


class Canary(Result):
    probes: int
    distinguishable: int
    """Probes that tell the release from the one before."""
    max_logprob_error: float
    max_value_error: float


class FleetReplica(Result):
    id: str
    number: int | None
    """Number of this server among several, which its answers and ids name."""
    address: str
    status: str
    """starting, behind, preparing, switching, waiting, ready, leaving, evicted or lost."""
    epoch: int
    """The epoch whose release it holds; 0: none yet."""
    version: str
    failures: int
    error: str | None
    seconds: dict[str, float] | None
    """Durations of its last change of release."""


class FleetEpoch(Result):
    number: int
    release: str
    state: str
    """preparing, committing, committed, going_back or gone_back."""
    mode: str
    """rolling or barrier."""
    error: str | None
    """Why it went back."""


class Fleet(Result):
    name: str
    committed: FleetEpoch
    """The epoch that is served."""
    newest: FleetEpoch
    """The last activation that was asked for."""
    replicas: list[FleetReplica]


class Activation(Result):
    release: str
    previous: str | None
    canary: Canary
    seconds: dict[str, float]
    epoch: int | None = None
    """In a fleet: the number of the epoch that is served now."""
    replicas: list[FleetReplica] | None = None
    """In a fleet: every replica of it."""


class Version(Result):
    version: str
    model: str
    release: str
    remote: bool = False
    """True if the policy is on another server."""
