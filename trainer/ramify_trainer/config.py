"""Settings of a run, from one TOML file. Unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ramify.objects import StoreOptions
from ramify.rewards import registry
from ramify.weights import Release, load_release, shipped
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning.config import LearningConfig, Section
from ramify_trainer.learning.labels import OutcomeWeights


class FromBase(Section):
    """A TOML file about training from a base."""

    base: str = "shipped"
    """Release that training starts from: `shipped`, or a directory."""
    tasks: Mapping[str, str] = Field(default={})
    """Tasks of other packages by name, each `package.module:Name`, beside those that entry points announce. Servers
    that `ramify-trainer loop` starts have them too."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file and register its tasks. A `base` that is a relative path is relative to the file.

        Raises `pydantic.ValidationError` for unknown or wrong keys, `tomllib.TOMLDecodeError`, `OSError`, and
        `BadExtension` for a task that cannot be registered."""
        settings = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        for name, verifier in settings.tasks.items():
            registry.register(name, verifier)
        return settings.relative_to(path.parent)

    def relative_to(self, folder: Path) -> Self:
        """Return the settings with the releases that they name by a relative path in `folder`."""
        return self.model_copy(update={"base": release_in(folder, self.base)})


def release_in(folder: Path, named: str) -> str:
    """Return `shipped`, or the directory of a release that a file in `folder` names."""
    return named if named == "shipped" else str(folder / named)


class ServerConfig(Section):
    """The server that searches and serves. Keys come from files, else from `RAMIFY_API_KEY`, `RAMIFY_ADMIN__KEY`."""

    url: str = "http://127.0.0.1:8000"
    """Address of the API."""
    admin_url: str = "http://127.0.0.1:8001"
    """Address of the admin API."""
    key_file: Path | None = None
    """File with an API key of the scopes search and log."""
    admin_key_file: Path | None = None
    """File with the admin key."""
    activate_seconds: float = Field(default=30.0, gt=0)
    """Seconds that running searches may go on when new weights are to be loaded."""
    lease_seconds: float = Field(default=300.0, ge=1, le=86_400)
    """Seconds that the log's cursor is kept for this trainer; renewed every third of them."""


class TeacherConfig(Section):
    """A stronger model whose searches the policy learns from, in place of its own. Its token ids must mean the same."""

    url: str | None = None
    """Address of the API of its server."""
    release: str | None = None
    """In place of `url`, for `ramify-trainer loop`, which then serves it: `shipped`, or a directory."""
    key_file: Path | None = None
    """File with an API key of that server, of the scopes search and log. None: no key is sent, nor `RAMIFY_API_KEY`."""

    @model_validator(mode="after")
    def one_teacher(self) -> Self:
        if (self.url is None) == (self.release is None):
            raise ValueError("give either url or release")
        return self


class TemperatureConfig(Section):
    """A temperature of the searches that follows the entropy of what they draw.

    After each round it is multiplied by (`entropy` / the round's `draws/entropy`) ^ `gain`, and kept between `low` and
    `high`. The first round's is `collect.sampling.temperature`, or 1."""

    entropy: float = Field(gt=0)
    """Entropy to keep to, in nats a token."""
    low: float = Field(default=0.7, gt=0, le=2)
    """Lowest temperature."""
    high: float = Field(default=1.5, gt=0, le=2)
    """Highest temperature."""
    gain: float = Field(default=0.5, gt=0, le=2)
    """Share of the way, on a scale of logarithms, that a round corrects."""

    @model_validator(mode="after")
    def bounds_in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, {self.high:g}")
        return self


class CollectConfig(Section):
    """The searches of a round."""

    data: str = "countdown:train?numbers=4,5,6"
    """Data set, as `ramify eval --data` takes it."""
    problems: int = Field(default=256, ge=0)
    """Problems a round; 0: it learns from other people's searches alone."""
    search: Mapping[str, Any] = Field(default={"algorithm": "mcts", "budget": {"tokens": 500}})
    """The `search` object of `POST /v1/search`. Its `early_stop` is `off` unless given. Search defaults of the release
    add nothing to it."""
    sampling: Mapping[str, Any] = Field(default={})
    """The `sampling` object of `POST /v1/search`."""
    temperature: TemperatureConfig | None = None
    concurrency: int = Field(default=32, ge=1, le=1024)
    """Searches at once."""
    batch: int = Field(default=1, ge=1, le=1024)
    """Problems that share their budgets, which then go where they are expected to find most: the sum of their
    `search.budget.tokens`. 1: each problem has its own."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds for one search, or for one batch, waiting for a busy server included."""

    @property
    def first_temperature(self) -> float:
        """The temperature of the first round's searches."""
        return float(self.sampling.get("temperature", 1.0))

    @model_validator(mode="after")
    def temperature_begins_within_its_bounds(self) -> Self:
        follows = self.temperature
        if follows and not follows.low <= self.first_temperature <= follows.high:
            raise ValueError(
                f"sampling.temperature is {self.first_temperature:g}, while temperature.low is {follows.low:g} and "
                f"temperature.high is {follows.high:g}: the first round's lies between them"
            )
        return self

    @model_validator(mode="after")
    def tokens_to_share(self) -> Self:
        if self.batch > 1 and "tokens" not in self.search.get("budget", {}):
            raise ValueError(
                "batch shares search.budget.tokens between problems: give it, or leave batch at 1"
            )
        return self


class MeasureConfig(Section):
    """Held-out problems, answered without search."""

    data: str
    """Data set, as `ramify eval --data` takes it."""
    problems: int = Field(default=200, ge=1)
    """Problems drawn from it."""
    answers: int = Field(default=16, ge=1)
    """k of mean@k: answers to each problem at temperature 1."""
    max_tokens: int = Field(default=40, ge=1)
    """Longest answer, in tokens."""


class SamplerConfig(Section):
    """The sampler of the answers by which gate and report measure weights that are not served."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """`vllm`: an engine in a process of its own, which takes the memory that training has left, and is gone before the
    next phase. `transformers`: batches in the trainer itself, on its device. `auto`: `vllm` on a GPU if it is
    installed, else `transformers`."""
    gpu_fraction: float | None = Field(default=None, gt=0, lt=1)
    """`vllm` on a GPU: share of the card's memory; none: nine tenths of what is free."""
    compile: bool = False
    """`vllm`: compile the model first, which takes up to minutes and pays for large gates only."""
    start_seconds: float = Field(default=900.0, gt=0)
    """`vllm`: seconds that the engine may take to become ready."""
    stall_seconds: float = Field(default=300.0, gt=0)
    """`vllm`: seconds without a step after which the engine counts as dead."""


class GateConfig(MeasureConfig):
    """The harm that rejects a candidate, if it is shown with 95 % confidence on the dev split.

    `ramify-trainer gate-power` simulates how often which harm is noticed."""

    data: str = "countdown:dev?numbers=4,5,6"
    """Data set, as `ramify eval --data` takes it."""
    margin: float = Field(default=0.01, ge=0, le=1)
    """Largest loss of mean@k, in accuracy, that still passes; 1 lets everything pass."""
    greedy_margin: float = Field(default=0.05, ge=0, le=1)
    """The same of greedy accuracy, which is noisier."""
    value_answers: int = Field(default=4, ge=0)
    """Sampled answers to each problem, of the candidate and of the incumbent, that their values judge; 0 leaves the
    value out of the gate."""
    value_margin: float | None = Field(default=None, ge=0, le=1)
    """The same of the value's AUC and Brier score; none: `margin`."""


class HeldOutConfig(MeasureConfig):
    """The problems of the report; never used to decide anything."""

    data: str = "countdown:test?numbers=4,5,6"
    """Data set, as `ramify eval --data` takes it."""
    problems: int = Field(default=300, ge=1)
    """Problems drawn from it."""


class ServiceConfig(Section):
    """`ramify-trainer run`: when a round begins, and the address of /livez, /readyz and /metrics."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8002, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one, which the log names."""
    pause_seconds: float = Field(default=0.0, ge=0)
    """Seconds between the end of a round and the next."""
    min_backlog: int = Field(default=0, ge=0)
    """Records of the log, trees and feedback, that must wait before a round begins."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """Seconds between two looks at the server and at the backlog."""
    stall_seconds: float = Field(default=900.0, gt=0)
    """Seconds without progress after which /readyz is 503."""
    stop_seconds: float = Field(default=30.0, ge=0)
    """Seconds that SIGTERM leaves the present step; what has not ended then is done again after the next start."""
    longest_wait_seconds: float = Field(default=60.0, gt=0)
    """Longest wait between two tries while server or object store are away; the waits begin at 1 s and double."""
    store_seconds: float = Field(default=3600.0, ge=0)
    """Seconds for which an object store that is away is waited for; then the trainer ends. Wrong credentials end it at
    once."""


class DistributedConfig(Section):
    """The processes that train a round together: one, the trainer itself, unless there are to be more.

    They are started for the train phase and gone after it. If one dies, the round's training begins again."""

    processes: int = Field(default=1, ge=1, le=4096)
    """Processes. Each has a GPU, or if there is none, CPU cores; they speak NCCL, or gloo. `learning.sharding` says
    whether each holds all weights."""
    launcher: Literal["local", "ray"] = "local"
    """`local`: on the trainer's machine. `ray`: Ray Train (the extra `fleet`) places them on the nodes of a cluster."""
    min_processes: int | None = Field(default=None, ge=1)
    """`ray`: processes that are enough if the cluster has no room for all, as when a node is gone; none: all."""
    address: str = Field(default="auto", min_length=1)
    """`ray`: address of the cluster, as `ray start` tells it; `auto`: of one with a node on this machine."""
    cpus: float = Field(default=1.0, gt=0, le=4096)
    """`ray`: CPU cores of each process, for Ray to count."""
    restarts: int = Field(default=3, ge=0, le=1000)
    """Times that a round's training begins again when a process has died; then the trainer ends."""
    start_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds that the processes may take to be placed, to start and to meet."""
    timeout_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds that a process waits for another one, which counts as dead then."""

    @property
    def apart(self) -> bool:
        """True if the trainer does not train itself."""
        return self.processes > 1 or self.launcher == "ray"

    @property
    def least(self) -> int:
        """Processes without which training does not begin."""
        return self.min_processes or self.processes

    @model_validator(mode="after")
    def least_is_not_above_all(self) -> Self:
        if self.least > self.processes:
            raise ValueError(f"min_processes is {self.least}, above processes, {self.processes}")
        return self

    @model_validator(mode="after")
    def ray_settings_have_ray(self) -> Self:
        fields = type(self).model_fields
        given = [n for n in ("min_processes", "address", "cpus") if getattr(self, n) != fields[n].default]
        if given and self.launcher != "ray":
            raise ValueError(
                f'{given[0]} is of launcher "ray": set launcher to that, or leave {given[0]} out'
            )
        return self


class LoopConfig(FromBase):
    """One run."""

    name: str = Field(default="loop", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """Part of every Idempotency-Key: another run searches anew. Also the log's consumer."""
    seed: int = Field(default=0, ge=0)
    """Seed of problems, searches, training and measurements."""
    rounds: int | None = Field(default=None, ge=1)
    """Rounds of the run; none: until it is stopped."""
    weights: Path = Path("runs/weights")
    """Folder of releases, the server's `weights`. The base is copied into it."""
    objects: StoreOptions = StoreOptions()
    """Object store of releases, if the server fetches them from one."""
    state: Path = Path("runs/loop")
    """Folder for everything that the run needs to go on."""
    keep_learners: int = Field(default=3, ge=1)
    """Learners (weights in float32, optimizer) of the last promoted rounds that stay in the state folder, beside those
    of the incumbent and of the best release. If an operator returns to a release whose learner is gone, training begins
    anew from it at step 0."""
    most_records: int = Field(default=10_000, ge=1, le=10_000)
    """Records of the log that a round reads at most; the rest waits for the next one."""
    server: ServerConfig = ServerConfig()
    teacher: TeacherConfig | None = None
    service: ServiceConfig = ServiceConfig()
    collect: CollectConfig = CollectConfig()
    outcomes: OutcomeWeights = OutcomeWeights()
    learning: LearningConfig = LearningConfig()
    distributed: DistributedConfig = DistributedConfig()
    gate: GateConfig = GateConfig()
    sampler: SamplerConfig = SamplerConfig()
    held_out: HeldOutConfig = HeldOutConfig()

    @model_validator(mode="after")
    def teacher_is_imitated(self) -> Self:
        compared = [own.objective for own in self.learning.over_run if own.needs_ratio]
        if self.teacher and self.learning.train_policy and compared:
            raise ValueError(
                f"learning.objective is {compared[0]!r}, which compares the policy with its own draws, "
                'and a teacher drew these: set "sft" or "visits", or train_policy to false'
            )
        return self

    def relative_to(self, folder: Path) -> Self:
        """Return the settings with the releases that they name by a relative path in `folder`."""
        settings = super().relative_to(folder)
        if settings.teacher is None or settings.teacher.release is None:
            return settings
        release = release_in(folder, settings.teacher.release)
        return settings.model_copy(
            update={"teacher": settings.teacher.model_copy(update={"release": release})}
        )


def base_release(base: str) -> Release:
    """Return the release that a run begins with: `shipped`, or a directory."""
    return load_release(shipped() if base == "shipped" else Path(base))


def key_in(path: Path | None) -> str | None:
    """Return the API key in a file. Raises `TrainerError`."""
    try:
        return None if path is None else path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise TrainerError(f"the key file {path} cannot be read: {error.strerror}") from error
