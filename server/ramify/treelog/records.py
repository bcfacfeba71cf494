"""The records that go into the log and come out of it. All are frozen; times are Unix seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ramify.search.codec import BadTree, tree_from_dict
from ramify.search.records import OutcomeSource
from ramify.search.tree import Tree
from ramify.treelog.errors import CorruptTree

ActivationKind = Literal["activate", "rollback", "automatic"]
"""Asked for; asked to go back; done by the server itself, because a release failed or none was recorded."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A logged tree without its body. Texts that SQL cannot hold have U+FFFD in their place."""

    seq: int
    """Its place in the log, from 1, shared with feedback; the order of commits."""
    tree_id: str
    created_at: float
    status: str
    model: str
    release: str
    """The release that wrote its first node; empty if there is none."""
    algorithm: str
    task: str | None
    n_nodes: int
    n_tokens: int
    """Every generated token."""
    best_value: float | None
    """The outcome model's value of the chosen answer, in [0, 1]."""
    outcome: float | None
    """The latest outcome of the chosen answer, in [0, 1]: the last `Feedback` that names its node, else the verifier's
    at the search's end."""
    outcome_source: OutcomeSource | None
    """Its author; `None` if there is none."""
    key_id: str
    """The API key that asked; empty if none was needed."""
    train: bool
    prompt: str
    """Its first 200 characters."""
    answer: str | None
    """The first 200 characters of the chosen answer's final form, or else of its text."""
    continues: str | None
    """Id of the tree that this one goes on from, if it does."""


@dataclass(frozen=True, slots=True)
class Entry(Summary):
    """A logged tree."""

    kind: ClassVar[Literal["tree"]] = "tree"
    schema_version: int
    sha256: str
    """Hash of `body`, hexadecimal; checked on reading."""
    body: bytes
    """The tree's JSON, ASCII."""

    def document(self) -> dict[str, Any]:
        """Return the tree as JSON holds it. Raises `CorruptTree` if the body is not JSON."""
        try:
            return parse_json(self.body.decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise CorruptTree(self.tree_id, f"the body is not JSON: {error}") from error

    def tree(self) -> Tree:
        """Return the tree. Raises `CorruptTree` if the body is not a tree of this schema."""
        try:
            return tree_from_dict(self.document())
        except BadTree as error:
            raise CorruptTree(self.tree_id, f"the body is no tree: {error}") from error


@dataclass(frozen=True, slots=True)
class Feedback:
    """An outcome that somebody gave an answer of a logged tree."""

    kind: ClassVar[Literal["outcome"]] = "outcome"
    seq: int
    """Its place in the log, shared with trees."""
    outcome_id: str
    """`out_` and a random hex string."""
    tree_id: str
    """The tree that it is on."""
    node: int | None
    """The node that ends the answer; `None` if only its text was given."""
    answer: str | None
    """The answer's text, if given."""
    outcome: float
    """In [0, 1]; 1 is right."""
    source: OutcomeSource
    """Its author: a person, or a program that checked."""
    key_id: str
    """The API key that gave it; empty if none was needed."""
    comment: str
    """A remark of whoever gave it."""
    train: bool
    """True if the trainer may learn from it."""
    created_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class CorruptRow:
    """A row that is not what was written. Readers count it and go on."""

    kind: ClassVar[Literal["corrupt"]] = "corrupt"
    seq: int
    """Its place in the log."""
    tree_id: str
    """The tree that it is, or is on."""
    reason: str
    """One line for people."""


Record = Entry | Feedback | CorruptRow
"""One place of the log, as consumers read it; `kind` is its name in lines of NDJSON."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on the trees of a listing; `None` sets none. Texts match exactly but for `tree_id` and `text`."""

    tree_id: str | None = None
    """The start of its id."""
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
    """The latest outcome of the chosen answer: 1, less than 1, or none was given."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A registered reader of the log."""

    name: str
    cursor: int
    """The last `seq` that it is done with; 0 is the beginning."""
    version: int
    """From 1, rising with every change: the ETag."""
    owner: str | None
    """The holder of the lease; `None` if nobody holds it, or it has run out."""
    lease_expires: float | None
    updated_at: float
    key_id: str = ""
    """The API key that changed it last, and holds the lease if there is one; empty without keys."""
    high_water: int = 0
    """The log's last `seq` when it was read."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim on an idempotency key."""

    state: Literal["new", "running", "answered", "other_body"]
    """`new`: the key was free and is now claimed, so run the search. `running`: its search has not ended yet.
    `answered`: its answer is `body`. `other_body`: the key was used with another request."""
    search_id: str
    """The search that holds the key."""
    body: bytes = b""
    """The kept answer, if `answered`."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer to keep for an idempotency key."""

    key_id: str
    key: str
    search_id: str
    """The claim's search: an answer is kept only while its claim stands."""
    compressed: bytes
    keep_seconds: float = 86400.0


@dataclass(frozen=True, slots=True)
class Release:
    """A release as the log knows it; its files are on disk."""

    release_id: str
    state: str
    figures: Mapping[str, Any]
    """Figures of the gate and the canary, JSON-ready."""
    created_at: float
    updated_at: float
    activated_at: float | None
    """Unix seconds at which it was last made the active one; `None` if never."""
    active: bool


@dataclass(frozen=True, slots=True)
class Activation:
    """One change of the active release; the newest says which is active."""

    id: int
    release_id: str
    note: str
    activated_at: float
    """Unix seconds."""
    kind: ActivationKind = "activate"


ObjectBody = tuple[int, str]
"""The object that holds the body of a tree: the id of its store, in the log's table of them, and the hash of the body,
after which it is named."""


@dataclass(frozen=True, slots=True)
class ExpiryCounts:
    """Numbers of rows that expiry deleted."""

    trees: int
    feedback: int
    claims: int


@dataclass(frozen=True, slots=True)
class LogSize:
    """Number and size of the log's trees, or of some of them."""

    trees: int
    bytes: int
    """Bytes of their bodies, compressed."""
    oldest: float | None
    """Time at which the oldest was made, in Unix seconds; `None` if there is none."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of `verify`."""

    trees: int
    outcomes: int
    high_water: int
    bad: list[CorruptRow] = field(default_factory=list)
    """In the order of `seq`; rows of no tree have an empty `tree_id`. A row may have several reasons."""

    @property
    def ok(self) -> bool:
        return not self.bad


def parse_json(text: str) -> dict[str, Any]:
    """Read an object as `json.loads` does, the items of its lists one by one.

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
    """Read an object without spaces between its parts; return `None` or raise for anything else."""
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
