"""The fleet file: how many replicas of which server, on what, and the front door before them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ramify.settings import BadSettings, Settings, is_loopback, load
from ramify.settings.groups import SettingsGroup, explain, read_toml
from ramify.settings.loading import PREFIX, variables

FLEETS_OWN = {
    "host": "replicas listen where their node is",
    "port": "each replica takes a free one, and door.port is the fleet's",
    "replica": "the fleet gives each its number",
    "fleet.name": "it is the fleet file's name",
    "fleet.address": "each replica tells its own",
    "admin.enabled": "the fleet is administered through it",
    "admin.host": "it is the replica's own",
    "admin.port": "each replica takes a free one, and door.admin_port is the fleet's",
}
"""Settings of a server that its fleet decides, and why a fleet file may not."""
DOOR = "-door"
"""Ends the name under which Ray Serve has a fleet's front door."""
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=1, le=65_535)]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]


class ReplicaTable(SettingsGroup):
    """Number of replicas, and the part of its node that each takes."""

    min: int = Field(default=1, ge=1, le=200, description="Replicas that always run.")
    max: int | None = Field(
        default=None, ge=1, le=200, description="Replicas at most; none: as many as `min`, and no scaling."
    )
    tokens: int | None = Field(
        default=None,
        ge=1,
        description="Reserved tokens (`ramify_reserved_tokens`) that one replica is to carry: above it replicas are "
        "added, below it removed. For `max` above `min`.",
    )
    cpus: float = Field(default=1, gt=0, le=4096, description="CPU cores of each, for Ray to count.")
    gpus: int = Field(default=0, ge=0, le=64, description="GPUs of each, all on one node.")
    start_seconds: Seconds = Field(
        default=1800, description="How long one may take until it is ready, its release fetched and loaded."
    )
    command: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description='What starts one, as `["numactl", "--localalloc", "ramify", "serve"]`; none: `ramify serve` '
        "of its node's own Python.",
    )

    @property
    def most(self) -> int:
        return self.min if self.max is None else self.max

    @model_validator(mode="after")
    def whole(self) -> ReplicaTable:
        if self.most < self.min:
            raise ValueError(f"max is {self.max} and min {self.min}: max must not be below it")
        if (self.most > self.min) != (self.tokens is not None):
            raise ValueError(
                "tokens and a max above min go together: tokens says when there are to be more than min"
            )
        return self


class DoorTable(SettingsGroup):
    """The front door: HAProxy on the node where Ray's head runs."""

    host: str = Field(
        default="127.0.0.1", pattern=r"^[0-9a-fA-F.:]{1,45}$", description="Address of its ports."
    )
    port: Port = Field(default=8000, description="Port for everybody.")
    admin_port: Port = Field(
        default=8001, description="Port, on loopback only, that leads to an admin listener of the fleet."
    )
    metrics_port: Port = Field(
        default=8002, description="Port, on `host`, of the metrics of all replicas, each labelled `replica`."
    )
    session_headers: Annotated[tuple[HeaderName, ...], Field(max_length=8)] = Field(
        default=("x-session-id",),
        description="Headers whose value leads all requests that have it to one replica; the first one there counts.",
    )
    prompt_head: int = Field(
        default=0,
        ge=0,
        le=16_384,
        description="Bytes of a prompt, or of each of the first two messages, that lead to one replica all requests "
        "that begin so and have no such header; 0: the least busy replica takes them.",
    )

    @model_validator(mode="after")
    def ports_differ(self) -> DoorTable:
        if len({self.port, self.admin_port, self.metrics_port}) < 3:
            raise ValueError("port, admin_port and metrics_port must differ")
        return self


class RayTable(SettingsGroup):
    """The cluster."""

    address: str | None = Field(
        default=None,
        min_length=1,
        max_length=300,
        description="Of a running cluster, as `ray start` tells it, or `auto`; none: one on this machine that lives as "
        "long as `ramify fleet up`.",
    )
    cpus: int | None = Field(
        default=None, ge=1, le=4096, description="CPU cores of a cluster on this machine; none: all."
    )
    gpus: int | None = Field(default=None, ge=0, le=64, description="GPUs of such a cluster; none: all.")

    @model_validator(mode="after")
    def own_resources(self) -> RayTable:
        if self.address is not None and (self.cpus is not None or self.gpus is not None):
            raise ValueError("cpus and gpus are of a cluster on this machine; that at address has its own")
        return self


class FleetFile(SettingsGroup):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name of the fleet.")
    server: Path | dict[str, Any] = Field(
        description="The settings of every replica: a table, or the file of `ramify serve --config`."
    )
    replicas: ReplicaTable = ReplicaTable()
    door: DoorTable = DoorTable()
    ray: RayTable = RayTable()

    @field_validator("name")
    @classmethod
    def name_is_no_doors(cls, name: str) -> str:
        if name.endswith(DOOR):
            raise ValueError(
                f"must not end in {DOOR}: that is how Ray Serve knows another fleet's front door"
            )
        return name


@dataclass(frozen=True)
class Plan:
    """A fleet file, read and checked."""

    file: FleetFile
    settings: Settings
    """Those of a replica, but for what its fleet and its node decide."""
    variables: dict[str, str]
    """The same as the environment of its process."""
    folder: Path
    """Folder of the fleet file: relative paths in the settings start there, on every node."""
    keyed: bool
    """True if the replicas have API keys."""

    @property
    def admin_keyed(self) -> bool:
        """True if the replicas have an admin key."""
        admin = self.settings.admin
        return any(given is not None for given in (admin.key, admin.sha256, admin.key_file))


def read_plan(path: Path) -> Plan:
    """Read a fleet file. `RAMIFY_` variables win over its settings, as with `ramify serve`. Raises `BadSettings`."""
    try:
        file = FleetFile.model_validate(read_toml(path))
    except ValidationError as error:
        raise BadSettings(f"{path}: {explain(error)}") from error
    folder = path.absolute().parent
    table = read_toml(folder / file.server) if isinstance(file.server, Path) else file.server
    given = {name: os.environ[name] for name, _, _ in variables() if name in os.environ}
    for name, value in {**table, "fleet": {}}.items():
        variable = PREFIX + name.upper()
        if (
            isinstance(value, Mapping) and variable in given
        ):  # as a replica's environment it would take the place of the file's table
            raise BadSettings(
                f"{path}: {variable} is a table that the fleet has too: give its fields, as {variable}__FIELD"
            )
    named = {*_names(table), *_named(given)}
    for name, why in FLEETS_OWN.items():
        if name in named:
            raise BadSettings(f"{path}: server.{name} is for the fleet to decide: {why}")
    fleet = {"name": file.name, **table.get("fleet", {})}
    try:
        with chdir(folder):
            settings = load({**table, "fleet": fleet})
            keyed = bool(settings.auth.all_keys())
    except BadSettings as error:
        raise BadSettings(f"{path}: server: {error}") from error
    if not keyed and not is_loopback(file.door.host):
        raise BadSettings(
            f"{path}: door.host: without API keys only loopback addresses are served, not {file.door.host}: configure "
            "server.auth.keys, or set door.host to 127.0.0.1"
        )
    return Plan(file, settings, {**_environment({**table, "fleet": fleet}), **given}, folder, keyed)


def _names(table: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of a table's settings."""
    for name, value in table.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in value)


def _named(given: Mapping[str, str]) -> Iterator[str]:
    """The dotted names of the settings that variables give, those in a table's JSON too."""
    for variable, name, _ in variables():
        if variable in given:
            with suppress(ValueError):
                yield from _names({name: json.loads(given[variable])})
            yield name


def _environment(table: Mapping[str, Any]) -> dict[str, str]:
    """Return a table of settings as the variables that say the same."""
    return {
        PREFIX + name.upper(): value if isinstance(value, str) else json.dumps(value)
        for name, value in table.items()
    }
