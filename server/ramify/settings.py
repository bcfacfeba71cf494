"""Every setting of the server, in one typed tree.

Sources, the later winning: the defaults below, a TOML file, ``RAMIFY_…`` variables (``RAMIFY_PORT=9000``,
``RAMIFY_LIMITS__BUDGET_TOKENS=5000``), flags. An unknown key is an error in each of them. `docs/configuration.md`
is made from this file's field descriptions by ``python -m ramify.settings``.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "RAMIFY_"

OTHERS = (
    "RAMIFY_TRAINER_",
    "RAMIFY_CRASH_",
    "RAMIFY_TEST_",
    "RAMIFY_CLIENT_",
    "RAMIFY_URL",
    "RAMIFY_API_KEY",
)
"""Variables with our prefix that belong to other programs: the trainer, the tests, the client."""

Scope = Literal["search", "log", "feedback"]


class BadSettings(ValueError):
    """Settings that cannot be used; the message names each and says what is wrong with it."""


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ApiKey(Group):
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
    train_feedback: bool = Field(
        default=False, description="Whether the trainer may learn from this key's feedback."
    )

    @model_validator(mode="after")
    def one_secret(self) -> ApiKey:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError(f"key {self.name!r}: give exactly one of key and sha256")
        if self.key is not None and len(self.key.get_secret_value()) < 16:
            raise ValueError(f"key {self.name!r}: a key has at least 16 characters")
        return self

    @property
    def digest(self) -> bytes:
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        assert self.key is not None
        return hashlib.sha256(self.key.get_secret_value().encode()).digest()


class Auth(Group):
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


class Limits(Group):
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
    budget_simulations: int = Field(default=10_000, ge=1, description="Largest `search.budget.simulations`.")
    budget_tokens: int = Field(
        default=200_000,
        ge=1,
        description="Largest `search.budget.tokens`; a search that names none gets no more than this.",
    )
    budget_nodes: int = Field(
        default=20_000, ge=1, description="Largest `search.budget.nodes`, and every search's cap."
    )
    deadline_seconds: float = Field(
        default=300.0,
        gt=0,
        description="A request's deadline in seconds, waiting included, where it names none; and the largest "
        "`deadline` and `search.budget.seconds`. At the deadline the best answer so far is sent.",
    )
    continuations: int = Field(default=256, ge=1, description="Texts judged by one POST /v1/value.")
    page: int = Field(default=1000, ge=1, le=10_000, description="Trees in one page of GET /v1/trees.")


class Admission(Group):
    """How much runs at once. A request beyond it waits in a queue, then is refused with 429 or 503."""

    tokens_in_flight: int = Field(
        default=1_000_000, ge=1, description="Generated tokens reserved by all running searches together."
    )
    searches: int = Field(default=64, ge=1, description="Searches running at once.")
    queue: int = Field(default=256, ge=0, description="Searches waiting to run.")
    queue_seconds: float = Field(default=30.0, ge=0, description="Longest wait in that queue.")
    key_tokens_in_flight: int | None = Field(
        default=None,
        ge=1,
        description="Of `tokens_in_flight`, the most that one API key may hold; none: all of it.",
    )


class Stream(Group):
    """Server-Sent Events."""

    progress_seconds: float = Field(
        default=0.25, gt=0, description="Shortest time between two `search.progress` events."
    )
    ping_seconds: float = Field(
        default=10.0, gt=0, description="A comment is sent after this long without an event."
    )


class Probe(Group):
    """How readiness is known: a real request to each engine."""

    deadline_seconds: float = Field(
        default=10.0, gt=0, description="An engine that needs longer is not ready."
    )
    cache_seconds: float = Field(default=1.0, ge=0, description="How long one probe's result is used again.")


class EngineSettings(Group):
    """The vLLM engines. Absent values are computed from the machine."""

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Precision of the weights; `auto` is the checkpoint's own."
    )
    max_model_len: int | None = Field(
        default=None, ge=2, description="Tokens of prompt and answer together; none: the model's own limit."
    )
    max_num_seqs: int = Field(default=256, ge=1, description="Sequences that each engine runs at once.")
    max_waiting: int = Field(default=8192, ge=1, description="Sequences that may wait for an engine.")
    seeded: bool = Field(
        default=True,
        description="Each draw follows its own seed. Off: a little faster, not repeatable.",
    )
    policy_kv_bytes: int | None = Field(
        default=None, ge=1 << 20, description="CPU: bytes of the policy's KV cache."
    )
    value_kv_bytes: int | None = Field(
        default=None, ge=1 << 20, description="CPU: bytes of the value model's KV cache."
    )
    policy_gpu_fraction: float = Field(
        default=0.55, gt=0, lt=1, description="GPU: share of the card's memory for the policy."
    )
    value_gpu_fraction: float = Field(
        default=0.3, gt=0, lt=1, description="GPU: share of the card's memory for the value model."
    )
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that each model is spread over.")
    block_size: int | None = Field(default=None, ge=1, description="Tokens of one KV block.")
    threads: int | None = Field(default=None, ge=1, description="CPU: threads of each engine.")
    compile: bool | None = Field(
        default=None,
        description="Compile the models at start-up; none: on a GPU, and on a CPU with a C++ compiler.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="ERROR", description="Level of vLLM's own log."
    )
    start_timeout: float = Field(
        default=900.0, gt=0, description="Seconds that an engine may take to become ready."
    )


class Settings(BaseSettings):
    """The server's settings."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        allow_inf_nan=False,
    )

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. Other than loopback needs an API key."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    release: Path | None = Field(
        default=None,
        description="Directory of the release to serve; none: the shipped one.",
    )
    policy: str | None = Field(
        default=None,
        description="Directory of a causal language model to serve in place of a release.",
    )
    value: str | None = Field(
        default=None,
        description="Directory of a one-label sequence classifier, the value model of `policy`; without it only "
        "what needs no value model can be asked for.",
    )
    model_name: str | None = Field(
        default=None, description="Name under which the model is served; none: the release's own."
    )
    task: str | None = Field(
        default=None, description="Task of requests that name none; none: the release's own."
    )
    log: str = Field(
        default="sqlite:///runs/trees.db",
        description="Where searched trees are kept: a file, which is SQLite's (also `sqlite:///file`), or "
        "`postgresql://user@host/database`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe line logged."
    )
    drain_seconds: float = Field(
        default=20.0,
        ge=0,
        description="On SIGTERM, how long running searches may go on before they are stopped and answered.",
    )
    engine: EngineSettings = Field(default=EngineSettings(), description="The vLLM engines.")
    auth: Auth = Field(default=Auth(), description="API keys.")
    limits: Limits = Field(default=Limits(), description="The largest request taken.")
    admission: Admission = Field(default=Admission(), description="How much runs at once.")
    stream: Stream = Field(default=Stream(), description="Server-Sent Events.")
    probe: Probe = Field(default=Probe(), description="Readiness.")

    @field_validator("host")
    @classmethod
    def host_is_named(cls, host: str) -> str:
        if not host:
            raise ValueError("name an address; 0.0.0.0 listens on all of them")
        return host

    @field_validator("log")
    @classmethod
    def log_is_url(cls, log: str) -> str:
        return log if "://" in log else f"sqlite:///{log}"

    @model_validator(mode="after")
    def one_model(self) -> Settings:
        if self.policy is None and self.value is not None:
            raise ValueError("value is the value model of a policy: give policy too, or a release")
        if self.policy is not None and self.release is not None:
            raise ValueError("give either a release or policy and value")
        return self

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, FileSource(settings_cls))


class FileSource(PydanticBaseSettingsSource):
    """The TOML file that `load` was given."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        return dict(_file_content.get())


_file_content: ContextVar[Mapping[str, Any]] = ContextVar("_file_content", default=MappingProxyType({}))
"""The parsed TOML file, for the length of one `load`."""


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from all sources. A flag that is `None` was not given; nested ones are mappings
    (``limits={"page": 5}``). Raises `BadSettings`."""
    token = _file_content.set(_toml(config) if config else {})
    try:
        _refuse_unknown_variables()
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise BadSettings(_explain(error)) from error
    finally:
        _file_content.reset(token)
    settings.auth.all_keys()
    return settings


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _keys_of(path: Path) -> tuple[ApiKey, ...]:
    content = _toml(path)
    if unknown := set(content) - {"keys"}:
        raise BadSettings(f"{path}: unknown key {min(unknown)!r}; it holds [[keys]] tables only")
    try:
        return tuple(ApiKey.model_validate(key) for key in content.get("keys", ()))
    except ValidationError as error:
        raise BadSettings(f"{path}: {_explain(error)}") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} is no TOML: {error}") from error


def _refuse_unknown_variables() -> None:
    known = {name for name, _, _ in variables()}
    for name in os.environ:
        if name.startswith(PREFIX) and not name.startswith(OTHERS) and name.upper() not in known:
            raise BadSettings(
                f"the variable {name} is no setting of Ramify (docs/configuration.md lists them)"
            )


def variables() -> Iterator[tuple[str, str, Any]]:
    """(variable, dotted name, field) of every setting, groups included."""
    for name, field in Settings.model_fields.items():
        yield PREFIX + name.upper(), name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            for inner, inner_field in field.annotation.model_fields.items():
                yield f"{PREFIX}{name.upper()}__{inner.upper()}", f"{name}.{inner}", inner_field


def _explain(error: ValidationError) -> str:
    """One line a mistake; the value given is left out, as it may be a secret."""
    lines = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return "; ".join(lines)


def document() -> str:
    """`docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "Defaults, then the TOML file of `--config`, then variables, then flags; the later wins. An unknown key is an",
        'error. A list or table in a variable is JSON: `RAMIFY_AUTH__KEYS=\'[{"name": "me", "sha256": "…"}]\'`.',
        "This page is made from `server/ramify/settings.py` by `python -m ramify.settings > docs/configuration.md`.",
        "",
    ]
    lines += _table("Top level", [(v, n, f) for v, n, f in variables() if "." not in n and not _is_group(f)])
    for name, field in Settings.model_fields.items():
        if _is_group(field):
            rows = [(v, n, f) for v, n, f in variables() if n.startswith(name + ".")]
            lines += _table(f"`[{name}]`", rows, (field.annotation.__doc__ or "").strip())
    keys = [("", f"auth.keys[].{name}", field) for name, field in ApiKey.model_fields.items()]
    return "\n".join(lines + _table("`[[auth.keys]]`", keys, (ApiKey.__doc__ or "").strip()))


def _is_group(field: Any) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Group)


def _table(title: str, rows: list[tuple[str, str, Any]], text: str = "") -> list[str]:
    lines = [f"## {title}", "", *([text, ""] if text else [])]
    lines += ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for variable, name, field in rows:
        default = "required" if field.is_required() else f"`{_shown(field.default)}`"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {f'`{variable}`' if variable else ''} | {default} | {meaning} |")
    return [*lines, ""]


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
