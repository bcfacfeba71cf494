"""The options of the engines, of the servers that have policies and of what judges, declared once: the settings' tables
`[engine]`, `[policy_server]`, `[policies.NAME]` and `[scorer]`, with which `ramify.engines` starts.

Settings and engines know nothing of each other, so this stands below both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

ADDRESS = r"^https?://[^/@?#\s]+(/[^?#\s]*)?$"
"""A server: no user, no query, so that no secret stands in it."""


class EngineOptions(BaseModel):
    """The vLLM engines. Absent values are computed from the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # vLLM's own `auto` would halve float32 unasked.
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="Precision of the weights; `auto` is the checkpoint's own, but float32 for bfloat16 on an x86 CPU "
        "without instructions for it.",
    )
    max_model_len: int | None = Field(
        default=None, ge=2, description="Tokens of prompt and answer together; none: the model's own limit."
    )
    max_num_seqs: int = Field(default=256, ge=1, description="Sequences that each engine runs at once.")
    max_waiting: int = Field(
        default=8192, ge=1, description="Sequences that may wait for an engine; the next one is refused."
    )
    seeded: bool = Field(
        default=True,
        description="Each draw follows its own seed. Off: a little faster, not repeatable.",
    )
    policy_kv_bytes: int | None = Field(
        default=None,
        ge=1 << 20,
        description="Bytes of the policy's KV cache; none, on a GPU: by `policy_gpu_fraction`.",
    )
    value_kv_bytes: int | None = Field(
        default=None,
        ge=1 << 20,
        description="Bytes of the value model's KV cache. GPU: with both given the engines start side by side, "
        "else one after the other.",
    )
    policy_gpu_fraction: float = Field(
        default=0.55,
        gt=0,
        lt=1,
        description="GPU: share of the card's memory for the policy.",
    )
    value_gpu_fraction: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="GPU: the same for the value model; some memory must be left.",
    )
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that each model is spread over.")
    block_size: int | None = Field(
        default=None,
        ge=1,
        description="Tokens of one KV block; none: 32 on a CPU, else vLLM's choice.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU: threads of each engine.")
    compile: bool | None = Field(
        default=None,
        description="Compile the models at start-up; none: on a GPU, and on a CPU with a C++ compiler.",
    )
    adapters: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Releases that are LoRA adapters, on one base, which the policy's engine holds at once: the one "
        "served, one on trial, and those that older searches still use; at least 2. 0: none can be served. Uses "
        "memory, and on a CPU turns compilation off.",
    )
    adapter_rank: int = Field(
        default=16, ge=1, le=512, description="Largest rank of their matrices; memory is set aside for it."
    )
    tool_parser: str | None = Field(
        default=None,
        max_length=100,
        description="vLLM's parser of tool calls in what the model writes, such as `hermes`; none: `tools` are "
        "refused. An unknown name is answered at start with those that there are.",
    )
    tool_strict_level: Literal["auto", "function", "parameter"] = Field(
        default="auto",
        description="Degree to which vLLM constrains tool calls: `auto` holds arguments to the schema of tools that "
        "say `strict: true`, `function` constrains the form of every call, `parameter` the arguments too.",
    )
    reasoning_parser: str | None = Field(
        default=None,
        max_length=100,
        description="vLLM's parser of reasoning in what the model writes, such as `qwen3`; none: it is part of the "
        "answer.",
    )
    structured_outputs: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = Field(
        default="auto", description="vLLM's backend of constrained output."
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Folder in which compiled models are kept between starts; none: `~/.cache/vllm`. In a container, a "
        "volume.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="ERROR", description="Level of vLLM's own log."
    )
    start_timeout: float = Field(
        default=900.0, gt=0, description="Seconds that an engine may take to become ready."
    )

    @model_validator(mode="after")
    def room_to_change(self) -> EngineOptions:
        if self.adapters == 1:
            raise ValueError(
                "adapters is 1: none could take its place while it is served. Give 0, or 2 at least"
            )
        return self


class PolicyServerOptions(BaseModel):
    """A running vLLM server that has the policy, in place of an engine at home. `policy` then is a directory with the
    tokenizer and config.json of the same model; weights are not read. See bring-your-own.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: str | None = Field(
        default=None,
        pattern=ADDRESS,
        description="Address of a vLLM server, such as `http://gpu-box:8000`, whose tokenizer must be that of "
        "`policy`. None: no other server.",
    )
    served: str | None = Field(
        default=None,
        max_length=200,
        description="Name of the model there; none: the only one that it serves.",
    )
    key: SecretStr | None = Field(default=None, description="Sent as a bearer token.")
    key_file: Path | None = Field(
        default=None, description="A file that holds nothing but the key, in place of `key`."
    )
    seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="How long it may send nothing of a draw, its wait for a place included; the draw then fails.",
    )
    retries: int = Field(
        default=2,
        ge=0,
        le=10,
        description="Further tries of a draw if it cannot be reached or is overloaded; only of draws that follow "
        "their own seed, or are greedy.",
    )
    parallel: int = Field(
        default=256, ge=1, le=4096, description="Draws at once, each on a connection of its own."
    )

    @model_validator(mode="after")
    def whole(self) -> Self:
        given = (_changed(self) & PolicyServerOptions.model_fields.keys()) - {"url"}
        if self.url is None and given:
            raise ValueError(f"{min(given)} has no effect without url, the address of the server")
        if self.key is not None and self.key_file is not None:
            raise ValueError("give key or key_file, not both")
        return self


class OtherPolicyOptions(PolicyServerOptions):
    """A policy that searches may draw from beside the one served: an adapter on its weights, one on another server, or
    one of these three with other words around the prompt. See policies.md."""

    release: Path | None = Field(
        default=None,
        description="Directory of a release that is a LoRA adapter on the weights served. It takes one of "
        "`engine.adapters` for good.",
    )
    system: str | None = Field(
        default=None,
        max_length=20_000,
        description="System message of conversations, in place of the request's own; other prompts are refused.",
    )
    before: str = Field(
        default="",
        max_length=20_000,
        description="Text before the prompt; of a conversation, before its last user message.",
    )
    after: str = Field(default="", max_length=20_000, description="Text after it.")

    @model_validator(mode="after")
    def another(self) -> Self:
        if not _changed(self):
            raise ValueError("is the policy served: give release, url, system, before or after")
        if self.url is not None and self.release is not None:
            raise ValueError("give release or url, not both")
        return self

    @property
    def rewords(self) -> bool:
        """True if its prompts are not the requests' own."""
        return self.system is not None or bool(self.before or self.after)


class ScorerOptions(BaseModel):
    """A judge of answers in place of the value model or value head of a release or of `policy`, or one of several. See
    scorers.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["model", "judge", "http"] | None = Field(
        default=None,
        description="A reward `model` in an engine of its own; a `judge`, which is asked in words whether an answer is "
        "right; a model on another server (`http`). None: the release's value model or head, `value` or `value_head`.",
    )
    model: Path | None = Field(
        default=None,
        description="Directory of the model that judges, with its tokenizer. A `judge` without one: the policy itself. "
        "For `http`, tokenizer and config.json are enough; none: it reads the policy's token ids.",
    )
    format: Literal["auto", "tokens", "text", "chat", "qwen-prm", "math-shepherd", "trl-prm"] = Field(
        default="auto",
        description="How prompt and answer become the model's input; `auto`: by its architecture (scorers.md).",
    )
    label: str | None = Field(
        default=None,
        max_length=200,
        description="Label that means right, by its name in config.json or by its number; none: the only one, or "
        "label 1 of a process reward model.",
    )
    system: str | None = Field(
        default=None,
        max_length=10_000,
        description="System message of a chat format; none: the format's own.",
    )
    split: str | None = Field(
        default=None,
        max_length=20,
        description="Text that ends a step of the answer; empty: each action of the search is one. None: the format's.",
    )
    tag: str | None = Field(
        default=None,
        max_length=50,
        description="Text after each step, at whose last token it is judged; empty: the answer is judged at its end. "
        "None: the format's.",
    )
    good: str | None = Field(
        default=None,
        max_length=50,
        description="Token that a causal model writes for a right answer: compared with `bad`. None: the format's.",
    )
    bad: str | None = Field(default=None, max_length=50, description="Token for a wrong one.")
    rubric: str | None = Field(
        default=None,
        max_length=20_000,
        description="Question to a `judge`; `{question}` and `{answer}` stand for the prompt and the answer so far. "
        "None: a general one (scorers.md).",
    )
    url: str | None = Field(
        default=None,
        pattern=ADDRESS,
        description="`http`: address of the endpoint, path included.",
    )
    api: Literal["values", "classify", "pooling"] = Field(
        default="values",
        description="`http`: its form: `values` of texts, or vLLM's `/classify` or `/pooling` (scorers.md).",
    )
    served: str | None = Field(
        default=None, max_length=200, description="`http`: the field `model` of each request; none: left out."
    )
    key: SecretStr | None = Field(default=None, description="`http`: sent as a bearer token.")
    key_file: Path | None = Field(
        default=None, description="`http`: a file that holds nothing but the key, in place of `key`."
    )
    seconds: float = Field(
        default=30.0, gt=0, le=3600, description="`http`: longest time of one judgement, tries included."
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="`http`: further tries if it cannot be reached or is overloaded."
    )
    parallel: int = Field(
        default=16, ge=1, le=1024, description="`http`: requests at once, of 64 answers each."
    )
    a: float = Field(default=1.0, description="Calibration: value = sigmoid(a · logit + b).")
    b: float = Field(default=0.0, description="The same.")
    weight: float = Field(
        default=1.0,
        ge=0,
        description="One of several: weight of its value in their mean; 0: it is logged alone.",
    )
    prune_below: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="One of several: it is a safety scorer, which closes every branch that it values below this, and "
        "has no weight.",
    )

    @model_validator(mode="after")
    def whole(self) -> ScorerOptions:
        given = _changed(self) - {"kind"}
        if {"weight", "prune_below"} <= given:
            raise ValueError(
                "weight has no effect beside prune_below: a safety scorer's value is in no mean. For both, give the "
                "model two tables"
            )
        given.discard("weight")
        if self.kind is None and given:
            raise ValueError(f"{min(given)} has no effect without kind: model, judge or http")
        http = {"url", "api", "served", "key", "key_file", "seconds", "retries", "parallel"}
        if self.kind != "http" and (wrong := given & http):
            raise ValueError(f"{min(wrong)} has no effect on kind {self.kind}; it is for http")
        if self.kind == "http":
            self._check_http(given)
        if self.kind == "model" and self.model is None:
            raise ValueError("kind model needs model, the directory of a reward model")
        if self.kind == "judge" and (wrong := given & {"format", "label", "split", "tag"}):
            raise ValueError(f"{min(wrong)} has no effect on a judge, which reads its rubric")
        if self.kind in ("model", "http") and "rubric" in given:
            raise ValueError(f"rubric has no effect on kind {self.kind}; it is the question to a judge")
        for name in ("{question}", "{answer}"):
            if self.rubric is not None and name not in self.rubric:
                raise ValueError(f"rubric lacks {name}")
        return self

    def _check_http(self, given: set[str]) -> None:
        if self.url is None:
            raise ValueError("kind http needs url, the address of the endpoint")
        if self.key is not None and self.key_file is not None:
            raise ValueError("give key or key_file, not both")
        textual = given & {"model", "format", "label", "system", "split", "tag", "good", "bad"}
        if self.api == "values" and textual:
            raise ValueError(f"{min(textual)} has no effect on api values, which is sent texts")
        formed = given & {"system", "split", "tag", "good", "bad"}
        if self.model is None and formed:
            raise ValueError(
                f"{min(formed)} has no effect without model, whose template and tokenizer it needs"
            )


def _changed(options: BaseModel) -> set[str]:
    """Return the names of the fields that are not at their defaults. Not `model_fields_set`: with variables or a file,
    every default counts as set."""
    fields = type(options).model_fields
    return {name for name in fields if getattr(options, name) != fields[name].default}
