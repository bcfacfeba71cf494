"""The groups of settings, one class a TOML table, and the reading of TOML files."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from ramify.extensions import NAME, PATH
from ramify.settings.placeholders import unusable

Scope = Literal["search", "log", "feedback"]
ExtensionName = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
ObjectPath = Annotated[str, Field(pattern=rf"^{PATH.pattern}$")]


class BadSettings(ValueError):
    """Settings that cannot be used; the message names each and says what is wrong with it."""


class SettingsGroup(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ApiKey(SettingsGroup):
    """One API key. Give the key itself or its sha256; only the sha256 is kept in memory once loaded."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        description="Name of the key in logs, metrics and trees. Never the secret itself."
    )
    key: SecretStr | None = Field(default=None, description="The secret, at least 16 characters.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Hexadecimal sha256 of the secret, in place of `key`."
    )
    scopes: tuple[Scope, ...] = Field(
        default=("search",),
        description="What it may do: `search` (ask, and see its own trees), `log` (read, consume and delete every "
        "tree), `feedback` (say afterwards whether an answer was right).",
    )
    train: bool = Field(
        default=False,
        description="Whether the trainer may learn from this key's searches, if they allow it too.",
    )
    train_feedback: bool = Field(
        default=False, description="Whether the trainer may learn from this key's feedback."
    )

    @model_validator(mode="after")
    def one_secret(self) -> ApiKey:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError(f"key {self.name!r}: give exactly one of key and sha256")
        if self.key is not None and (wrong := unusable(self.key.get_secret_value())):
            raise ValueError(f"key {self.name!r}: {wrong}")
        return self

    @property
    def digest(self) -> bytes:
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        assert self.key is not None
        return hashlib.sha256(self.key.get_secret_value().encode()).digest()


class AuthSettings(SettingsGroup):
    """Who may ask. Without any key the server listens on loopback only."""

    keys: tuple[ApiKey, ...] = Field(default=(), description="API keys, as tables `[[auth.keys]]`.")
    keys_file: Path | None = Field(
        default=None,
        description="A TOML file of more `[[keys]]` tables, for secrets kept apart from the configuration.",
    )

    def all_keys(self) -> tuple[ApiKey, ...]:
        """Keys of the settings and of the file. Raises `BadSettings`."""
        keys = self.keys + (_keys_of(self.keys_file) if self.keys_file else ())
        for what in ("name", "digest"):
            values = [getattr(key, what) for key in keys]
            if len(set(values)) != len(values):
                raise BadSettings(f"auth: two keys have the same {'name' if what == 'name' else 'secret'}")
        return keys


class AdminSettings(SettingsGroup):
    """The operators' listener: releases, rollback, drain. Its own port and its own key, never the public ones."""

    enabled: bool = Field(default=True, description="Whether there is one.")
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Other than loopback needs the key.",
    )
    port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port; 0 takes a free one. None: 8001, or a free one if `port` is 0.",
    )
    key: SecretStr | None = Field(
        default=None, description="The admin key, at least 16 characters. None: anybody on this machine."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Hexadecimal sha256 of the key, in place of `key`."
    )
    key_file: Path | None = Field(
        default=None, description="A file that holds nothing but the key, in place of `key`."
    )

    @model_validator(mode="after")
    def one_secret(self) -> AdminSettings:
        if sum(given is not None for given in (self.key, self.sha256, self.key_file)) > 1:
            raise ValueError("give at most one of key, sha256 and key_file")
        if self.key is not None and (wrong := unusable(self.key.get_secret_value())):
            raise ValueError(f"key: {wrong}")
        return self

    def digest(self) -> bytes | None:
        """sha256 of the key; `None` if there is none. Raises `BadSettings` for a key file that cannot be used."""
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        secret = self.key.get_secret_value() if self.key is not None else None
        if self.key_file is not None:
            try:
                secret = self.key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise BadSettings(f"admin.key_file: cannot read {self.key_file}") from error
            if wrong := unusable(secret):
                raise BadSettings(f"admin.key_file: {self.key_file}: {wrong}")
        return None if secret is None else hashlib.sha256(secret.encode()).digest()


class RequestCaps(SettingsGroup):
    """The largest request that is taken. A request beyond a limit is refused with 400 naming it."""

    body_bytes: int = Field(
        default=1 << 20, ge=1024, description="Bytes of one request body; more is refused with 413."
    )
    prompt_chars: int = Field(
        default=100_000, ge=1, description="Characters of a prompt, or of all messages together."
    )
    answer_tokens: int = Field(
        default=4096, ge=1, description="Largest `sampling.max_tokens`: tokens of one answer."
    )
    critique_tokens: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Tokens in which the policy may criticise its answer under `action: refine`, if the task has no "
        "feedback on it; 0: such answers cannot be refined.",
    )
    budget_simulations: int = Field(default=10_000, ge=1, description="Largest `search.budget.simulations`.")
    budget_tokens: int = Field(
        default=200_000,
        ge=1,
        description="Largest `search.budget.tokens`, and `budget.tokens` of a batch; a search that names none, and a "
        "batch that names none, gets no more than this.",
    )
    budget_nodes: int = Field(
        default=20_000, ge=1, description="Largest `search.budget.nodes`, and every search's cap."
    )
    deadline_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Deadline in seconds, waiting included, of a request that names none; and the largest "
        "`deadline` and `search.budget.seconds`. At the deadline the best answer so far is sent.",
    )
    verdict_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="How long the task's verifier may look at the answer of an ended search before its tree is "
        "logged; after a stop or the deadline it has 0.25 s.",
    )
    continuations: int = Field(default=256, ge=1, description="Texts judged by one POST /v1/value.")
    batch_prompts: int = Field(
        default=64, ge=1, le=1024, description="Prompts that share the budget of one POST /v1/search/batch."
    )
    page: int = Field(default=1000, ge=1, le=10_000, description="Trees in one page of GET /v1/trees.")


class AdmissionSettings(SettingsGroup):
    """How much runs at once. A request beyond it waits in a queue that is fair between API keys, then is refused: with
    429 if its key holds or waits for more than its share, with 503 if the server is full."""

    tokens_in_flight: int = Field(
        default=1_000_000, ge=1, description="Generated tokens reserved by all running requests together."
    )
    searches: int = Field(default=64, ge=1, description="Requests running at once.")
    queue: int = Field(
        default=256,
        ge=0,
        description="Requests waiting to run. If all places are taken, the API key with most of them loses its newest "
        "to another key's.",
    )
    queue_seconds: float = Field(default=30.0, ge=0, description="Longest wait in that queue.")
    key_tokens_in_flight: int | None = Field(
        default=None,
        ge=1,
        description="Of `tokens_in_flight`, the most that one API key may hold and wait for, in a fleet at all its "
        "replicas together; none: all of it.",
    )


class SearchAlias(SettingsGroup):
    """A search under a name of its own, for clients that can set a model and nothing else."""

    search: dict[str, Any] = Field(
        description="The search object, as `search` of OpenAI's routes takes it: parameters, `budget`, `task`, `train`."
    )


class StreamSettings(SettingsGroup):
    """Server-Sent Events."""

    progress_seconds: float = Field(
        default=0.25, gt=0, description="Shortest time between two `search.progress` events."
    )
    ping_seconds: float = Field(
        default=10.0, gt=0, description="A comment is sent after this long without an event."
    )


class ProbeSettings(SettingsGroup):
    """How readiness is known: a real request to each engine."""

    deadline_seconds: float = Field(
        default=10.0, gt=0, description="An engine that needs longer is not ready."
    )
    hang_seconds: float = Field(
        default=60.0,
        gt=0,
        description="An engine that makes no step for so long, though asked twice, counts as dead: running searches "
        "are answered with their best so far and logged, and the server ends with 3.",
    )
    cache_seconds: float = Field(default=1.0, ge=0, description="How long one probe's result is used again.")


class SpoolSettings(SettingsGroup):
    """Finished searches on their way into the log, when it is full or away; new ones are refused meanwhile."""

    searches: int = Field(default=256, ge=1, description="Finished searches that may wait for the log.")
    bytes: int = Field(
        default=1 << 28, ge=1 << 20, description="Their size together, compressed; more are lost, with a 503."
    )
    wait_seconds: float = Field(
        default=20.0,
        ge=0,
        description="How long a finished search's caller waits for the log before a 503 with the search's id.",
    )
    free_bytes: int = Field(
        default=64 << 20,
        ge=0,
        description="SQLite: free bytes on the log's disk below which no search is taken.",
    )
    deadline_seconds: float = Field(
        default=5.0, gt=0, description="A log that needs longer for a small write takes no writes."
    )


class CheckpointSettings(SettingsGroup):
    """Checkpoints of running searches: after a crash they are logged as `interrupted`, and can be taken on."""

    seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="A running search is committed this often, so that a crash costs no more of it; 0: never. "
        "PostgreSQL: a search whose server has not been heard of for four times as long counts as interrupted.",
    )


class RetentionSettings(SettingsGroup):
    """How long trees are kept; none of it: for ever. Only what every registered consumer has read is deleted."""

    days: float | None = Field(default=None, gt=0, description="Trees of this age are deleted.")
    bytes: int | None = Field(
        default=None,
        ge=0,
        description="The oldest trees are deleted until the rest takes no more, compressed.",
    )
    every_seconds: float = Field(
        default=600.0, ge=1, description="How often the log is looked at, for this and for its metrics."
    )


class ExtensionSettings(SettingsGroup):
    """Objects of installed packages, each as `package.module:Name`. They run with the server's rights, so only settings
    and the packages' entry points name them, never a request. See library.md."""

    tasks: dict[ExtensionName, ObjectPath] = Field(
        default={},
        description="Tasks by name, beside the shipped ones and those of entry points `ramify.tasks`.",
    )
    algorithms: dict[ExtensionName, ObjectPath] = Field(
        default={},
        description="Algorithms by name, beside the shipped ones and those of entry points `ramify.algorithms`.",
    )
    scorer: ExtensionName | ObjectPath | None = Field(
        default=None,
        description="The scorer of every search in place of the value model's: a path, or the name of an entry point "
        "`ramify.scorers`.",
    )


class FleetSettings(SettingsGroup):
    """Several servers on one log that serve one release, activated in all of them or in none (fleet.md)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = Field(
        default=None,
        description="Name of the fleet that this server belongs to; none: it serves alone. Needs `log` on PostgreSQL.",
    )
    address: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Address at which people and the other replicas reach this one; none: its own `host` and port, on "
        "loopback if `host` is 0.0.0.0.",
    )
    heartbeat_seconds: float = Field(
        default=0.5,
        ge=0.05,
        le=60,
        description="How often this replica looks at the fleet; ten times a second during an activation. All replicas "
        "together aim at 30 looks a second, so that of more than 15 each looks less often.",
    )
    lease_seconds: float = Field(
        default=10.0,
        ge=0.2,
        le=600,
        description="How long this replica may answer after its last look, and so how long an activation waits for one "
        "that is gone. At least three heartbeats.",
    )
    least_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the replicas that stays in service during a rolling activation that this one is asked "
        "for; one at a time may leave in any case.",
    )
    activation_seconds: float = Field(
        default=900.0, gt=0, description="How long an activation of the fleet may take before it goes back."
    )

    @model_validator(mode="after")
    def whole(self) -> FleetSettings:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError("lease_seconds must be at least three times heartbeat_seconds")
        if self.address is not None and not self.address.startswith(("http://", "https://")):
            raise ValueError("address must begin with http:// or https://")
        fields = type(self).model_fields.items()
        if self.name is None and any(getattr(self, name) != field.default for name, field in fields):
            raise ValueError("give the fleet a name (fleet.name): without one this server is in none")
        return self


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _keys_of(path: Path) -> tuple[ApiKey, ...]:
    content = read_toml(path)
    if unknown := set(content) - {"keys"}:
        raise BadSettings(f"{path}: unknown key {min(unknown)!r}; it holds [[keys]] tables only")
    try:
        return tuple(ApiKey.model_validate(key) for key in content.get("keys", ()))
    except ValidationError as error:
        raise BadSettings(f"{path}: {explain(error)}") from error


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} is not valid TOML: {error}") from error


def explain(error: ValidationError) -> str:
    """One line a mistake; the value given is left out, as it may be a secret."""
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return "; ".join(lines)
