"""The manifest of a release: its model, how it is meant to be used, and how to tell that it is really served.

The exceptions of this package stand here too: `WeightsError`, and those of its kind that callers tell apart.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ramify.search import records
from ramify.search.params import MAX_TEMPLATE
from ramify.weights.search_defaults import SearchDefaults, check_search_defaults


class WeightsError(Exception):
    """Something is wrong with a release on disk; the message says what, and what to do."""


class ReleaseNotFound(WeightsError):
    """No release has this id, or the id is not v and six digits."""


class ReleaseTaken(WeightsError):
    """Another release has this id: another publisher was faster."""


class StoreAway(WeightsError):
    """The object store of releases cannot be reached, or fails at the moment: trying again later may help."""


_ID = re.compile(r"v[0-9]{6}")

ReleaseId = Annotated[str, Field(pattern=r"^v[0-9]{6}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FOLDERS = ("policy", "policy_adapter", "value")
"""Folders of a release."""
ValueKind = Literal["model", "trunk"]
"""A value model of its own judges, or a linear head on the policy's trunk."""


def is_id(name: str) -> bool:
    """Return whether a name is v and six digits."""
    return bool(_ID.fullmatch(name))


def check_id(release_id: str) -> str:
    """Return `release_id` if it is v and six digits, else raise `ReleaseNotFound`."""
    if not is_id(release_id):
        raise ReleaseNotFound(f"a release id is 'v' and six digits, such as v000001, not {release_id[:40]!r}")
    return release_id


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileDigest(_Model):
    """Size and hash of one file of the release."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    """Bytes."""


class Calibration(_Model):
    """value = sigmoid(a · logit + b)."""

    a: Finite = 1.0
    b: Finite = 0.0


class Action(_Model):
    """One action of a search, unless a request says otherwise."""

    kind: Literal["step", "token", "chunk"] = "step"
    stop: tuple[str, ...] = ("\n",)
    """Texts that end a step; the text is part of the step."""
    max_tokens: int = Field(default=16, ge=1)
    """Longest action, in tokens."""

    def record(self) -> records.Action:
        """Return it as searches take it."""
        return records.Action(self.kind, self.stop, self.max_tokens)


class Probe(_Model):
    """A text whose figures under these weights are known: a canary for what is really being served."""

    prompt: tuple[int, ...] = Field(min_length=1)
    """Token ids, the beginning-of-text token included if the model uses one."""
    continuation: tuple[int, ...] = Field(min_length=1)
    """Token ids that follow the prompt."""
    logprobs: tuple[Finite, ...] = Field(min_length=1)
    """The policy's log-probability (natural, temperature 1, no truncation) of each token of the continuation."""
    value: float = Field(ge=0, le=1)
    """The judgement of prompt and continuation together by the value model or head, calibrated."""

    @model_validator(mode="after")
    def _one_logprob_a_token(self) -> Probe:
        if len(self.logprobs) != len(self.continuation):
            raise ValueError(f"{len(self.continuation)} tokens but {len(self.logprobs)} log-probabilities")
        return self


class Details(_Model):
    """The part of the manifest that a publisher writes; the rest follows from the files."""

    name: str = Field(min_length=1, max_length=128)
    """The name under which the model is served."""
    parent: ReleaseId | None = None
    """The release whose weights these were trained from; None for a first one."""
    calibration: Calibration = Calibration()
    default_task: str | None = None
    """The task that a bare prompt is taken to belong to; None for none."""
    default_action: Action = Action()
    default_max_tokens: int = Field(default=64, ge=1)
    """Longest answer in tokens, unless a request says otherwise."""
    refine_template: str = Field(default="", max_length=MAX_TEMPLATE)
    """Words in which a better answer is asked for, unless a request says otherwise (`action.template`); empty: the
    task's, or the server's own."""
    search: tuple[SearchDefaults, ...] = ()
    """How a prompt is searched if its request does not say, by budget; none: with the algorithm's own defaults."""
    canary: tuple[Probe, ...] = ()
    training_step: int = Field(default=0, ge=0)
    """Optimizer steps taken since the run began, policy and value together."""
    metrics: dict[str, Finite] = {}
    """Figures measured at publication, by name."""
    log_cursor: int | None = Field(default=None, ge=0)
    """The `seq` of the tree log up to which this release was trained; None if it was not trained on a log."""

    @field_validator("refine_template")
    @classmethod
    def _tells_feedback(cls, template: str) -> str:
        if template and "{feedback}" not in template:
            raise ValueError("lacks {feedback}, in whose place the feedback on an answer comes")
        return template

    @field_validator("search")
    @classmethod
    def _can_be_asked_for(
        cls, search: tuple[SearchDefaults, ...], info: ValidationInfo
    ) -> tuple[SearchDefaults, ...]:
        if (action := info.data.get("default_action")) is not None:  # else its own fault is told
            check_search_defaults(search, action.record())
        return search


class Base(_Model):
    """The policy that an adapter stands on: that of a release which lies beside the adapter's."""

    release: ReleaseId
    policy: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of its policy's files and their names (`Release.policy_digest`): another policy under that id is refused."""


class Manifest(Details):
    """`manifest.json`."""

    format: Literal[1] = 1
    id: ReleaseId
    created_at: datetime
    """When the release was published, UTC."""
    value: ValueKind = "model"
    """`model`: `value/` is a Hugging Face directory. `trunk`: it holds `head.safetensors` alone."""
    base: Base | None = None
    """`None`: `policy/` holds the policy whole. Else `policy_adapter/` holds a LoRA adapter in its place, and without
    a `value/` the base's judges."""
    files: dict[str, FileDigest]
    """Every file but `manifest.json` and `READY`, by POSIX path relative to the release."""

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> Manifest:
        for name in self.files:
            path = PurePosixPath(name)
            if len(path.parts) != 2 or path.parts[0] not in FOLDERS or ".." in path.parts:
                raise ValueError(f"{name!r} is not a file of {', '.join(f'{folder}/' for folder in FOLDERS)}")
        return self


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file, or raise `WeightsError` saying what is wrong with it."""
    try:
        return parse_manifest(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None


def parse_manifest(text: bytes, name: str) -> Manifest:
    """Return a manifest, or raise `WeightsError` saying what is wrong with it. name: that of the file or object."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise WeightsError(f"{name} is not a valid manifest: {faults}") from error
