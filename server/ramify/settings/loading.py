"""`Settings`, all of them together, and `load`, which makes one from every source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ramify.connections import ConnectionLimits
from ramify.engine_options import EngineOptions, OtherPolicyOptions, PolicyServerOptions, ScorerOptions
from ramify.objects import ObjectOptions
from ramify.search.params import POLICY_NAME
from ramify.search.records import OWN_POLICY
from ramify.settings.groups import (
    AdminSettings,
    AdmissionSettings,
    AuthSettings,
    BadSettings,
    CheckpointSettings,
    ExtensionSettings,
    FleetSettings,
    ProbeSettings,
    RequestCaps,
    RetentionSettings,
    SearchAlias,
    SpoolSettings,
    StreamSettings,
    explain,
    is_loopback,
    read_toml,
)

PREFIX = "RAMIFY_"
ADMIN_PORT = 8001
OF_THE_POLICY = (
    "policy_kv_bytes",
    "policy_gpu_fraction",
    "tool_parser",
    "tool_strict_level",
    "reasoning_parser",
    "structured_outputs",
)
"""Options of an engine that only a policy at home has."""
TableName = Annotated[str, Field(pattern=f"^{POLICY_NAME}$")]
"""Name of a scorer or a policy."""
AliasName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


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
        description="Directory of the release to serve; none: the shipped one. With `weights`, the one served until "
        "another is activated.",
    )
    weights: Path | None = Field(
        default=None,
        description="Folder of releases that may be activated, by id. The server only reads it, unless "
        "`objects.releases` has it fetch them into it.",
    )
    policy: str | None = Field(
        default=None,
        description="Directory of a causal language model to serve in place of a release.",
    )
    value: str | None = Field(
        default=None,
        description="Directory of a one-label sequence classifier, the value model of `policy`; without it or a "
        "`value_head` a search goes by the policy's own confidence.",
    )
    value_head: Path | None = Field(
        default=None,
        description="Safetensors file of a linear value head on the trunk of `policy`, in place of `value`.",
    )
    model_name: str | None = Field(
        default=None, description="Name under which the model is served; none: the release's own."
    )
    task: str | None = Field(
        default=None,
        description="Task of requests that name none: a name, or the path of a verifier, `package.module:Name`; none: "
        "the release's own.",
    )
    search_defaults: Literal["release", "none"] | Path = Field(
        default="release",
        description="How a prompt is searched if its request does not say: as the `release` says, by `none` but the "
        "algorithm's own defaults, or by a TOML file in the release's place (search.md).",
    )
    log: str = Field(
        default="sqlite:///runs/trees.db",
        description="The log of searched trees: a file, which is SQLite's (also `sqlite:///file`), or "
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
    replica: int | None = Field(
        default=None,
        ge=0,
        le=255,
        description="Number of this server among several that share a log. Every answer names it, and the ids that it "
        "gives end with it, so that what stands in front sends a request about a running search to its owner "
        "(front-doors.md). None: it is the only one, or its fleet gives it one.",
    )
    aliases: Annotated[dict[AliasName, SearchAlias], Field(max_length=100)] = Field(
        default={}, description="Searches that are asked for by a model's name, as tables `[aliases.NAME]`."
    )
    extensions: ExtensionSettings = Field(
        default=ExtensionSettings(), description="Tasks, algorithms and a scorer of other packages."
    )
    graders: int = Field(
        default=2,
        ge=1,
        le=256,
        description="Worker processes of each task that is graded in such, `code` and `math` among them.",
    )
    scorer: ScorerOptions = Field(
        default=ScorerOptions(), description="What judges answers in place of a value model."
    )
    scorers: Annotated[dict[TableName, ScorerOptions], Field(max_length=16)] = Field(
        default={},
        description="What judges answers if it is several, or prunes them, as tables `[scorers.NAME]` (scorers.md).",
    )
    policy_server: PolicyServerOptions = Field(
        default=PolicyServerOptions(), description="A vLLM server that has the policy."
    )
    policies: Annotated[dict[TableName, OtherPolicyOptions], Field(max_length=16)] = Field(
        default={},
        description="Policies that a search may name beside the one served, as tables `[policies.NAME]` (policies.md).",
    )
    engine: EngineOptions = Field(default=EngineOptions(), description="The vLLM engines.")
    auth: AuthSettings = Field(default=AuthSettings(), description="API keys.")
    admin: AdminSettings = Field(default=AdminSettings(), description="The operators' listener.")
    limits: RequestCaps = Field(default=RequestCaps(), description="The largest request taken.")
    connections: ConnectionLimits = Field(
        default=ConnectionLimits(), description="What the listeners take from whoever connects."
    )
    admission: AdmissionSettings = Field(default=AdmissionSettings(), description="How much runs at once.")
    stream: StreamSettings = Field(default=StreamSettings(), description="Server-Sent Events.")
    probe: ProbeSettings = Field(default=ProbeSettings(), description="Readiness.")
    objects: ObjectOptions = Field(
        default=ObjectOptions(), description="Object stores, for the bodies of trees and for releases."
    )
    checkpoints: CheckpointSettings = Field(
        default=CheckpointSettings(), description="Checkpoints of running searches."
    )
    retention: RetentionSettings = Field(default=RetentionSettings(), description="How long trees are kept.")
    spool: SpoolSettings = Field(
        default=SpoolSettings(), description="Finished searches on their way into the log."
    )

    fleet: FleetSettings = Field(
        default=FleetSettings(), description="Several servers that serve one release."
    )

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
        if self.policy is None and self.value_head is not None:
            raise ValueError("value_head is the value head of a policy: give policy too, or a release")
        if self.value is not None and self.value_head is not None:
            raise ValueError("value and value_head both judge: give one of them")
        if self.policy is not None and self.release is not None:
            raise ValueError("give either a release or policy and value")
        if self.policy is not None and self.weights is not None:
            raise ValueError(
                "weights is a folder of releases, and policy serves a model that is none: give one of them"
            )
        return self

    @field_validator("policies")
    @classmethod
    def policies_are_others(cls, policies: dict[str, OtherPolicyOptions]) -> dict[str, OtherPolicyOptions]:
        if OWN_POLICY in policies:
            raise ValueError(f"{OWN_POLICY!r} is the name of the one served: give this one another")
        return policies

    @model_validator(mode="after")
    def releases_have_a_folder(self) -> Settings:
        if self.objects.releases is not None and self.weights is None:
            raise ValueError("objects.releases needs weights, the folder that releases are fetched into")
        return self

    @model_validator(mode="after")
    def fleet_fits(self) -> Settings:
        if self.fleet.name is None:
            return self
        if not self.log.startswith("postgres"):
            raise ValueError("fleet.name: replicas share a log on PostgreSQL: set log to postgresql://…")
        if self.policy is not None:
            raise ValueError(
                "fleet.name: a fleet serves releases, and policy is none: give release or weights"
            )
        return self

    @model_validator(mode="after")
    def scorers_fit(self) -> Settings:
        for name in ("weight", "prune_below"):
            if getattr(self.scorer, name) != ScorerOptions.model_fields[name].default:
                raise ValueError(f"scorer.{name} is for one of several: name it, in a table [scorers.NAME]")
        if self.scorer.kind is not None and self.scorers:
            raise ValueError("scorer and scorers both judge: give [scorer] a name among [scorers.NAME]")
        own = [name for name, one in self.scorers.items() if one.kind is None]
        if len(own) > 1:
            raise ValueError(
                f"scorers.{own[0]} and scorers.{own[1]} have no kind, so both are the release's own"
            )
        weights = [one.weight for one in self.judges.values() if one.prune_below is None]
        if not any(weights):
            raise ValueError(
                f"scorers.{next(iter(self.scorers))}.weight: all weights are 0; one must be above it"
            )
        if any(one.kind is None for one in self.judges.values()):
            return self
        who = "scorer.kind" if self.scorer.kind is not None else "scorers"
        others = {
            "value": self.value,
            "value_head": self.value_head,
            "extensions.scorer": self.extensions.scorer,
        }
        for name, other in others.items():
            if other is not None:
                advice = (
                    "give one of them"
                    if self.scorer.kind
                    else "add a table [scorers.NAME] without kind for it"
                )
                raise ValueError(f"{name} and {who} both judge: {advice}")
        return self

    @property
    def judges(self) -> dict[str, ScorerOptions]:
        """All that judges, by name; a single scorer has none. One without a kind is what the release, `policy` or
        `extensions.scorer` brings, which also judges beside safety scorers alone."""
        if self.scorer.kind is not None:
            return {"": self.scorer}
        pruning = all(one.prune_below is not None for one in self.scorers.values())
        return {**({"": ScorerOptions()} if pruning else {}), **self.scorers}

    @model_validator(mode="after")
    def policy_elsewhere(self) -> Settings:
        if self.policy_server.url is None:
            return self
        if self.policy is None:
            raise ValueError(
                "policy_server.url needs policy, a directory with the tokenizer and config.json of the same model"
            )
        if self.value_head is not None:
            raise ValueError(
                "value_head stands on the trunk of a policy at home, and policy_server.url is elsewhere"
            )
        for name in OF_THE_POLICY:
            if getattr(self.engine, name) != EngineOptions.model_fields[name].default:
                raise ValueError(f"engine.{name} has no effect on a policy elsewhere: set it on that server")
        return self

    @property
    def admin_port(self) -> int:
        """Port of the admin listener; 0 takes a free one."""
        if self.admin.port is not None:
            return self.admin.port
        return ADMIN_PORT if self.port else 0

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
        return (init_settings, env_settings, InitSettingsSource(settings_cls, dict(file_content.get())))


file_content: ContextVar[Mapping[str, Any]] = ContextVar("file_content", default=MappingProxyType({}))
"""The parsed TOML file, for the length of one `load`."""


def variables() -> Iterator[tuple[str, str, Any]]:
    """(variable, dotted name, field) of every setting, groups included."""
    for name, field in Settings.model_fields.items():
        yield PREFIX + name.upper(), name, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner, inner_field in field.annotation.model_fields.items():
                yield f"{PREFIX}{name.upper()}__{inner.upper()}", f"{name}.{inner}", inner_field


OTHERS = (
    "RAMIFY_TRAINER_",
    "RAMIFY_CRASH_",
    "RAMIFY_TEST_",
    "RAMIFY_EXAMPLES",
    "RAMIFY_URL",
    "RAMIFY_ADMIN_URL",
    "RAMIFY_API_KEY",
    "RAMIFY_BASE_URL",
    "RAMIFY_ENGINE_RUN_FOLDER",
    "RAMIFY_ENGINE_SERVER",
)
"""Variables with our prefix that belong to others: the trainer, the tests, the client, the engines' own processes."""


def load(config: Path | Mapping[str, Any] | None = None, **flags: Any) -> Settings:
    """Settings from all sources. config: the TOML file, or what one holds. A flag that is `None` was not given; nested
    ones are mappings (`limits={"page": 5}`). Raises `BadSettings`."""
    token = file_content.set(read_toml(config) if isinstance(config, Path) else config or {})
    try:
        _refuse_unknown_variables()
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise BadSettings(explain(error)) from error
    finally:
        file_content.reset(token)
    settings.auth.all_keys()
    return settings


def _refuse_unknown_variables() -> None:
    known = {name for name, _, _ in variables()}
    for name in os.environ:
        if name.startswith(PREFIX) and not name.startswith(OTHERS) and name.upper() not in known:
            raise BadSettings(
                f"the variable {name} is not a setting of Ramify (docs/configuration.md lists them)"
            )
