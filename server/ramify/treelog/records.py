"""What goes into the log and comes out of it. Everything here is frozen; times are Unix seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ramify.search.codec import BadTree, tree_from_dict
from ramify.search.tree import Tree
from ramify.treelog.errors import CorruptTree

Source = Literal["human", "verifier"]
ReleaseState = Literal["available", "candidate", "promoted", "rejected", "indistinguishable", "failed"]
ActivationKind = Literal["activate", "rollback", "automatic"]
"""Asked for; asked to go back; done by the server itself, because a release failed or none was recorded."""


def _parsed(text: str) -> dict[str, Any]:
    """An object as `json.loads` reads it, the items of its lists one by one.

    `json.loads` holds the interpreter for as long as it takes, a second for a large tree, and every other thread waits.
    Raises `ValueError`, `RecursionError`.
    """
    try:
        document = _in_pieces(text)
    except json.JSONDecodeError:
        document = None
    if document is None:  # not as the log writes it: with spaces, or broken
        document = json.loads(text)
    return document


def _in_pieces(text: str) -> dict[str, Any] | None:
    """An object without spaces between its parts; `None` or an error if it is anything else."""
    value, at = _DECODER.raw_decode, 0
    document: dict[str, Any] = {}
    while text[at : at + 2] == (',"' if document else '{"'):
        name, at = value(text, at + 1)
        if text.startswith(":[", at) and not text.startswith(":[]", at):
            items: list[Any] = []
            at += 1
            while text[at : at + 1] == ("," if items else "["):
                item, at = value(text, at + 1)
                items.append(item)
            if not text.startswith("]", at):
                return None
            document[name], at = items, at + 1
        elif text.startswith(":", at):
            document[name], at = value(text, at + 1)
    return document if text[at:] == "}" else None


_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Summary:
    """A logged tree without its body. Texts that SQL cannot hold have U+FFFD in their place."""

    seq: int
    """Its place in the log, from 1, shared with outcomes; the order of commits."""
    tree_id: str
    created_at: float
    status: str
    model: str
    release: str
    """The release that wrote its first node; empty where there is none."""
    algorithm: str
    task: str | None
    n_nodes: int
    n_tokens: int
    """Every generated token."""
    best_value: float | None
    """The outcome model's value of the chosen answer, in [0, 1]."""
    outcome: float | None
    """The latest verdict on the chosen answer, in [0, 1]: the last `Feedback` that names its node, else the verifier's
    at the search's end."""
    outcome_source: Source | None
    """Who gave it; `None` if there is none."""
    key_id: str
    """The API key that asked; empty where none was needed."""
    train: bool
    prompt: str
    """Its first 200 characters."""
    answer: str | None
    """The first 200 characters of the chosen answer's final form, or else of its text."""


@dataclass(frozen=True, slots=True)
class Entry(Summary):
    """A logged tree."""

    schema_version: int
    sha256: str
    """Of `body`, hexadecimal; checked on reading."""
    body: bytes
    """The tree's JSON, ASCII."""

    def document(self) -> dict[str, Any]:
        """The tree as JSON holds it. Raises `CorruptTree` if the body is not JSON."""
        try:
            document = _parsed(self.body.decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise CorruptTree(self.tree_id, f"the body is not JSON: {error}") from error
        return document

    def tree(self) -> Tree:
        """Raises `CorruptTree` if the body is not a tree of this schema."""
        try:
            return tree_from_dict(self.document())
        except BadTree as error:
            raise CorruptTree(self.tree_id, f"the body is no tree: {error}") from error


@dataclass(frozen=True, slots=True)
class Feedback:
    """A later verdict on an answer of a logged tree."""

    seq: int
    """Its place in the log, shared with trees."""
    outcome_id: str
    """`out_` and a random hex string."""
    tree_id: str
    """The tree that it is on."""
    node: int | None
    """The node that ends the answer; `None` where only its text was given."""
    answer: str | None
    """The answer's text, where given."""
    outcome: float
    """In [0, 1]; 1 is right."""
    source: Source
    """Who says so: a person, or a program that checked."""
    key_id: str
    """The API key that gave it; empty if none was needed."""
    comment: str
    """What whoever gave it wrote beside it."""
    train: bool
    """Whether the key may feed training."""
    created_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class CorruptRow:
    """A row that is not what was written. Readers count it and go on."""

    seq: int
    """Its place in the log."""
    tree_id: str
    """The tree that it is, or is on."""
    reason: str
    """One line for people."""


@dataclass(frozen=True, slots=True)
class Record:
    """One place of the log, as consumers read it."""

    seq: int
    kind: Literal["tree", "outcome", "corrupt"]
    entry: Entry | None = None
    outcome: Feedback | None = None
    corrupt: CorruptRow | None = None

    @property
    def tree_id(self) -> str:
        content = self.entry or self.outcome or self.corrupt
        assert content is not None
        return content.tree_id


@dataclass(frozen=True, slots=True)
class Filters:
    """Which trees a listing shows; `None` asks for nothing. Texts match exactly but for `tree_id` and `text`."""

    tree_id: str | None = None
    """How its id starts."""
    status: str | None = None
    model: str | None = None
    release: str | None = None
    algorithm: str | None = None
    task: str | None = None
    key_id: str | None = None
    min_value: float | None = None
    """Least `best_value`."""
    text: str | None = None
    """Somewhere in the shown prompt or answer, whatever the case."""
    min_nodes: int | None = None
    """Least `n_nodes`."""
    verdict: Literal["right", "wrong", "none"] | None = None
    """The latest verdict on the chosen answer: 1, less than 1, or none was given."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A registered reader of the log."""

    name: str
    cursor: int
    """The last `seq` that it is done with; 0 is the beginning."""
    version: int
    """From 1, rising with every change: the ETag."""
    owner: str | None
    """Who holds the lease; `None` where nobody does, or it has run out."""
    lease_expires: float | None
    updated_at: float
    key_id: str = ""
    """The API key that changed it last, and holds the lease if there is one; empty without keys."""


@dataclass(frozen=True, slots=True)
class New:
    """The key was free and is now claimed: run the search."""


@dataclass(frozen=True, slots=True)
class Running:
    """The search of this key is still running."""

    search_id: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The search of this key has answered."""

    search_id: str
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key was used with another body."""

    search_id: str


Claim = New | Running | Replay | Conflict


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to keep for an idempotency key."""

    key_id: str
    key: str
    search_id: str
    """That of the claim: an answer is kept only while its claim stands."""
    status: int
    body: bytes
    keep_seconds: float = 86400.0


@dataclass(frozen=True, slots=True)
class Release:
    """What the store knows of a release; its files are on disk."""

    release_id: str
    state: str
    figures: Mapping[str, Any]
    """The gate's and the canary's, JSON-ready."""
    created_at: float
    updated_at: float
    activated_at: float | None
    """When it was last made the active one; `None` if never."""
    active: bool


@dataclass(frozen=True, slots=True)
class Activation:
    """One change of the active release; the newest says which is active."""

    id: int
    release_id: str
    note: str
    activated_at: float
    kind: ActivationKind = "activate"


@dataclass(frozen=True, slots=True)
class ExpiryCounts:
    """What retention removed."""

    trees: int
    outcomes: int
    claims: int


@dataclass(frozen=True, slots=True)
class LogSize:
    """Trees of the log, or a part of them."""

    trees: int
    bytes: int
    """Bytes of their bodies, compressed."""
    oldest: float | None
    """Time at which the oldest was made, in Unix seconds; `None` if there is none."""


@dataclass(frozen=True, slots=True)
class BadRow:
    seq: int
    tree_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found."""

    trees: int
    outcomes: int
    high_water: int
    bad: list[BadRow] = field(default_factory=list)
    """In the order of `seq`; rows of no tree have an empty `tree_id`."""

    @property
    def ok(self) -> bool:
        return not self.bad
