"""The tree that a search grows: nodes, statistics, and the complete answers in the order in which they were drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ramify.search.records import (
    NO_ANSWER,
    OMITTED,
    OWN_POLICY,
    Answer,
    AnswerVerdict,
    Origin,
    OutcomeSource,
    Revision,
    Sampling,
    SearchParams,
    SearchPart,
    SearchState,
    State,
    Status,
    StopReason,
    Terminal,
    Usage,
    UsedDefaults,
)

IGNORANCE = 0.5
"""The value of what nothing has judged."""


@dataclass(slots=True)
class Node:
    """One action and everything known of the text that it ends."""

    id: int
    """Index in `Tree.nodes`; the root, which stands for the prompt, is 0."""
    parent: int | None
    """Id of the node above; `None` at the root."""
    depth: int
    """Edges from the root."""
    tokens: tuple[int, ...] = ()
    """The action's token ids; none at the root."""
    logprobs: tuple[float, ...] = ()
    """Behaviour log-probability of each of them."""
    text: str = ""
    """The text they add."""
    length: int = 0
    """Tokens of its answer up to here, this action included."""
    prior: float = 1.0
    """P, in [0, 1]; siblings sum to 1."""
    multiplicity: int = 1
    """m: how many policy draws at the parent took this action."""
    value: float | None = None
    """v: the value model's estimate, in [0, 1], or the weighted mean of several scorers, or the policy's confidence if
    that is the `grader`; `None` if none was asked."""
    visits: int = 0
    """N: backups through here."""
    value_sum: float = 0.0
    """W: sum of what they carried."""
    in_flight: int = 0
    """O: simulations now below here. 0 in a finished tree."""
    fresh_visits: int = 0
    """Backups of what was drawn from here: one for each path through here, or for each expansion by one step."""
    fresh_value_sum: float = 0.0
    """Sum of what they carried."""
    expansions: int = 0
    """Expansions begun here."""
    expanding: int = 0
    """Expansions from here now in flight. 0 in a finished tree."""
    expanded: bool = False
    """An expansion from here has landed."""
    pruned: bool = False
    """Given up by the algorithm (`beam`, `dvts`, `dfs`, `particle`). What a safety scorer has closed says so in
    `terminal`."""
    terminal: Terminal | None = None
    """Reason for which an answer ends here; `None` if it goes on."""
    outcome: float | None = None
    """A verifier's or a person's verdict, in [0, 1]; never a model's."""
    outcome_source: OutcomeSource | None = None
    """Who gave `outcome`."""
    release: str = ""
    """Release whose weights sampled it."""
    simulation: int = 0
    """The simulation that made it, from 1; 0 at the root and in the final rollout."""
    tokens_spent: int = 0
    """Generated tokens that this edge cost: the action's tokens times its multiplicity, less those taken over from
    siblings (`replacement`). Of enumerated next tokens only the likeliest cost one."""
    children: list[int] = field(default_factory=list)
    """Ids of the nodes below, in the order in which they were made."""
    scores: Mapping[str, float] | None = field(default=None, metadata=OMITTED)
    """Value that each scorer gave it, in [0, 1], by its name in the settings; one that has no name is left out."""
    pruned_by: str | None = field(default=None, metadata=OMITTED)
    """The safety scorer that has closed the branch here; `None` unless `terminal` is `pruned`."""
    revision: Revision | None = field(default=None, metadata=OMITTED)
    """`refine`: what the answers below were drawn from, each to better the one that ends here; `None` if none was."""

    policy: str | None = field(default=None, metadata=OMITTED)
    """Name of the policy that drew it first, whose log-probabilities these are; `None` if the search names none."""
    drawn_by: Mapping[str, int] | None = field(default=None, metadata=OMITTED)
    """m by policy, if more than one took this action."""
    stands_for: float | None = field(default=None, metadata=OMITTED)
    """In a finished tree without `replacement`: how many draws with replacement it stands for beside its siblings
    (`departures.stand_for`)."""

    @property
    def draws(self) -> float:
        """Draws that it counts for in a mean over what the policy does at its parent: m, or what it stands for."""
        return self.multiplicity if self.stands_for is None else self.stands_for

    def draws_of(self, policy: str) -> int:
        """Return how many draws of a policy took this action. All of them, if the search has just one."""
        if self.drawn_by is not None:
            return self.drawn_by.get(policy, 0)
        return self.multiplicity if self.policy in (None, policy) else 0

    @property
    def own(self) -> bool:
        """True if its log-probabilities are those of the policy that is served, or of the only one there is."""
        return self.policy in (None, OWN_POLICY)

    @property
    def begun(self) -> int:
        """Tokens of the answer that a draw from here goes on with. Past the end of one, a draw is another answer."""
        return self.length if self.terminal is None else 0

    @property
    def mean(self) -> float | None:
        """Q = W/N in [0, 1]; the model's value before the first visit; `None` if neither is known."""
        return self.value_sum / self.visits if self.visits else self.value


@dataclass(frozen=True, slots=True)
class Completion:
    """One complete answer drawn, in the order of landing."""

    node: int
    """Id of the node that ends it."""
    simulation: int
    """The simulation that drew it, from 1; 0 for the final rollout."""
    tokens: int
    """Tokens the whole search had generated once it had landed."""


@dataclass(slots=True, kw_only=True)
class Tree:
    """A search and its result: the request, the nodes, the cost, the end."""

    id: str = ""
    """`tree_` and a UUIDv7 in hex, when the tree is to be logged."""
    created_at: float = 0.0
    """Unix seconds."""
    model: str = ""
    """Name of the model that was asked."""
    prompt: str = ""
    """The text that was continued; a conversation as its chat template writes it."""
    prompt_tokens: tuple[int, ...]
    """Its token ids, as the policy was given them."""
    prompts: Mapping[str, tuple[int, ...]] | None = field(default=None, metadata=OMITTED)
    """By policy, the token ids that its draws follow in place of `prompt_tokens`, if it has a prompt of its own."""
    params: SearchParams
    """Every parameter of the search, defaults filled in."""
    sampling: Sampling
    """Parameters with which answers were sampled."""
    seed: int
    """Origin of every random seed of the search."""
    defaults: UsedDefaults | None = field(default=None, metadata=OMITTED)
    """Search defaults that `params` and `sampling` were filled in from; `None`: none."""
    task: str | None = None
    """Name of the task that judges answers; `none` if nobody can."""
    problem: Mapping[str, Any] | None = None
    """The task's problem, in the task's own fields."""
    train: bool = True
    """The asker allows training on it."""
    nodes: list[Node] = field(default_factory=lambda: [Node(id=0, parent=None, depth=0)])
    """By id; parents stand before their children."""
    completions: list[Completion] = field(default_factory=list)
    """Complete answers in the order in which they were drawn, repeated ones too."""
    committed: list[int] = field(default_factory=list)
    """`commit: step`: the nodes committed, in order."""
    usage: Usage = field(default_factory=Usage)
    """Cost of the search."""
    status: Status = "running"
    """State at its end; `running` is never logged."""
    stop_reason: StopReason | None = None
    """Which limit or event ended it."""
    error: str | None = None
    """The failure, if it did not end well."""
    answer: Answer | None = None
    """The answer that the search gives: of complete ones, else of truncated texts; `None` if there is neither."""
    candidates: list[Answer] = field(default_factory=list)
    """Distinct final answers, best first; `answer` is the first."""
    ungrouped: int = field(default=0, metadata=OMITTED)
    """Complete answers that vote by their text alone: the task could not tell in time which others they equal."""
    verdict: AnswerVerdict | None = field(default=None, metadata=OMITTED)
    """The verifier's word on `answer`, given after the search; `None` if the task has no verifier or there is no
    answer. Labels for training are made from verifiers and people, never from a model's values."""
    parent_tree: str | None = None
    """The tree that this one was branched from."""
    origin: Origin | None = field(default=None, metadata=OMITTED)
    """The place in it; `None` exactly if `parent_tree` is."""
    batch: str | None = field(default=None, metadata=OMITTED)
    """The batch whose budget it shared, if it did."""
    conversation: Mapping[str, Any] | None = field(default=None, metadata=OMITTED)
    """`refine`: the `messages` that `prompt` was made of, and the variables of the chat `template`: requests for better
    answers follow them. `None` if the prompt is a text."""
    continues: SearchPart | None = field(default=None, metadata=OMITTED)
    """The search that this one goes on from, if it does: its draws, its cost and its statistics are the first part of
    this one's."""
    search_state: SearchState | None = field(default=None, metadata=OMITTED)
    """The search's own state, to be taken on later; `None` if it cannot be."""

    @property
    def root(self) -> Node:
        return self.nodes[0]

    @property
    def releases(self) -> list[str]:
        """Ids of the releases that wrote its nodes, in order of appearance; those of other policies than the one served
        come last."""
        served_first = sorted(self.nodes, key=lambda node: not node.own)
        return list(dict.fromkeys(node.release for node in served_first if node.release))

    def children(self, node: Node) -> list[Node]:
        return [self.nodes[i] for i in node.children]

    def below(self, node: Node) -> Iterator[Node]:
        """Yield `node` and all nodes below it."""
        left = [node]
        while left:
            yield (at := left.pop())
            left += self.children(at)

    def lineage(self, node: Node) -> list[Node]:
        """Return the path from the root to `node`, both included."""
        path = [node]
        while (parent := path[-1].parent) is not None:
            path.append(self.nodes[parent])
        return path[::-1]

    def share(self, node: Node) -> float:
        """Return the share of the policy's draws from the prompt that come to `node`, in (0, 1], as the finished tree
        tells it: the product of each step's share of the `draws` at its parent."""
        share = 1.0
        for step in self.lineage(node)[1:]:
            share *= step.draws / sum(child.draws for child in self.children(self.nodes[step.parent or 0]))
        return share

    def steps(self, node: Node) -> list[Node]:
        """Return the nodes that make up the answer as far as `node`: those below the root, or below the answer that it
        is to better."""
        path: list[Node] = []
        while node.parent is not None:
            path.append(node)
            node = self.nodes[node.parent]
            if node.terminal is not None:
                break
        return path[::-1]

    def unfinished(self, node: Node) -> list[Node]:
        """Return the nodes that make up the answer which a draw from `node` goes on with."""
        return self.steps(node) if node.terminal is None else []

    def answer_tokens(self, node: Node) -> tuple[int, ...]:
        return tuple(t for n in self.steps(node) for t in n.tokens)

    def prompt_of(self, node: Node) -> tuple[int, ...]:
        """Return the token ids of the prompt that the answer at `node` was drawn after."""
        steps = self.steps(node)
        above = self.nodes[steps[0].parent or 0] if steps else self.root
        return self.prompt_tokens if above.revision is None else above.revision.prompt

    def sequence(self, node: Node) -> tuple[int, ...]:
        """Return the token ids of its prompt and its answer so far, as the policy had them."""
        return self.prompt_of(node) + self.answer_tokens(node)

    def prefix(self, node: Node, policy: str = OWN_POLICY) -> tuple[int, ...]:
        """Return the token ids that a draw of a policy from `node` follows."""
        if self.prompts is not None and policy in self.prompts:
            return self.prompts[policy] + self.answer_tokens(node)
        return self.sequence(node) if node.revision is None else node.revision.prompt

    def state(self, steps: Sequence[Node]) -> State:
        """Return the prompt and the answer that `steps` make up with the ends of the prompt and of each of them, for a
        scorer. One that betters another is judged as an answer to the same prompt."""
        tokens = [token for step in steps for token in step.tokens]
        start = len(self.prompt_tokens)
        return State(self.prompt_tokens + tuple(tokens), [start, *(start + step.length for step in steps)])

    @property
    def opening(self) -> str:
        """Return the text that opens every answer: in a branched tree what its prompt holds of the answer, since a task
        judges the whole of it."""
        return "" if self.origin is None else self.origin.text

    def text(self, node: Node) -> str:
        """Return its answer so far, without the prompt."""
        return self.opening + "".join(step.text for step in self.steps(node))

    def leaf_value(self, node: Node) -> float | None:
        """Return what reaching `node` is worth, in [0, 1]; `None` if its judge failed or was not asked.

        A complete answer is worth its outcome if a verifier grades, else its value, or a mean of the two; one of them
        stands for both if the other is not known. One that was cut short or pruned is worth 0."""
        if node.terminal in NO_ANSWER:
            return 0.0
        if node.terminal is None or self.params.grader not in ("verifier", "mixed"):
            return node.value
        if self.params.grader == "verifier" or node.value is None:
            return node.outcome
        if node.outcome is None:
            return node.value
        share = self.params.verifier_weight
        return share * node.outcome + (1 - share) * node.value

    def estimate(self, node: Node) -> float:
        """Return `leaf_value`; ignorance, 0.5, if nothing has judged the node."""
        value = self.leaf_value(node)
        return IGNORANCE if value is None else value

    def leaves(self) -> Iterator[Node]:
        return (node for node in self.nodes if not node.children)

    @property
    def truncated(self) -> int:
        """Draws that were cut before the end of their answer."""
        return sum(node.multiplicity for node in self.nodes if node.terminal == "truncated")

    @property
    def pruned(self) -> int:
        """Draws that safety scorers closed (`terminal`), not nodes that an algorithm gave up (`Node.pruned`)."""
        return sum(node.multiplicity for node in self.nodes if node.terminal == "pruned")

    @property
    def all_pruned(self) -> bool:
        """True if safety scorers have closed every branch, and there is one."""
        ends = [node for node in self.nodes[1:] if not node.children]
        return bool(ends) and all(node.terminal == "pruned" for node in ends)

    def complete(self) -> list[Node]:
        """Return the ends of complete answers; those cut short or pruned are not complete."""
        return [node for node in self.nodes if node.terminal in ("eos", "stop")]

    def add(self, parent: Node, **fields: Any) -> Node:
        node = Node(id=len(self.nodes), parent=parent.id, depth=parent.depth + 1, **fields)
        self.nodes.append(node)
        parent.children.append(node.id)
        return node


def derive_seed(seed: int, *place: int | str) -> int:
    """Return a 63-bit seed for one place of a search: a hash of the search's seed and whatever names the place. (An
    engine that is given seed + index hands neighbours each other's random streams; a hash does not.)"""
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
