"""The bootstrap's settings: one TOML file, every key typed, unknown keys refused."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from ramify_trainer.learning.config import Section

__all__ = [
    "BootstrapConfig",
    "NetworkConfig",
    "PolicyConfig",
    "PolicyStage",
    "ReportConfig",
    "SamplingConfig",
    "TrunkConfig",
    "ValueConfig",
    "ValueRound",
]


class NetworkConfig(Section):
    """The sizes of policy and value model (a Llama each)."""

    hidden: PositiveInt = 192
    layers: PositiveInt = 4
    heads: PositiveInt = 6
    intermediate: PositiveInt = 512
    positions: PositiveInt = 128
    """Longest text in tokens; the demo's longest problem and answer take 40."""


class PolicyStage(Section):
    """One stage of the policy's curriculum; the learning rate warms up and decays within it."""

    steps: PositiveInt
    count_weights: dict[int, float]
    """Weight with which each number count, 2 to 6, is drawn."""
    learning_rate: float = Field(default=1e-3, gt=0)
    batch: PositiveInt = 64
    """Solved problems a step; twice as many of two and three numbers."""
    wrong_share: float = Field(default=0.0, ge=0, lt=1)
    """The share of them whose prompt states another one's target: text that is mostly wrong makes a weak policy."""


class PolicyConfig(Section):
    """Supervised training of the policy on random solved problems."""

    stages: tuple[PolicyStage, ...] = Field(
        default=(
            PolicyStage(steps=1_000, learning_rate=2e-3, count_weights={2: 0.2, 3: 0.4, 4: 0.4}),
            PolicyStage(steps=1_500, learning_rate=1e-3, count_weights={2: 0.05, 3: 0.35, 4: 0.4, 5: 0.2}),
            PolicyStage(steps=2_000, learning_rate=8e-4, count_weights={4: 0.4, 5: 0.33, 6: 0.27}),
        ),
        min_length=1,
    )
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: PositiveInt = 50
    """Steps of each stage over which the learning rate rises."""
    exact_from: int = Field(default=5, ge=0, le=5)
    """With at most so many numbers left the policy learns the exact distribution over next steps; 0 for never."""

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


class SamplingConfig(Section):
    """The samples that the value model learns from."""

    problems: PositiveInt = 30_000
    """Distinct training problems."""
    answers: PositiveInt = 8
    """Answers to each problem, at temperature 1."""
    continuations: PositiveInt = 4
    """Answers to each unfinished state that is sampled afresh."""
    states: int = Field(default=16_000, ge=0)
    """Unfinished states, drawn from the first answers, that are continued again."""
    count_weights: dict[int, float] = Field(default={4: 0.25, 5: 0.35, 6: 0.4})
    batch: PositiveInt = 128
    """Prompts a batch; a batch holds ``batch * answers`` texts."""


class ValueConfig(Section):
    """Training of the value model on the samples."""

    epochs: float = Field(default=0.8, gt=0)
    batch: PositiveInt = 16
    """Prompts a step, each with all its answers."""
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: PositiveInt = 100
    check_steps: int = Field(default=1_600, ge=0)
    """Steps of verification alone, at the beginning."""
    check_share: float = Field(default=0.4, ge=0, lt=1)
    """The share of verification among the later steps."""
    exact_from: int = Field(default=5, ge=0, le=5)
    """With at most so many numbers left the verification is told whether the target can be reached; 0 for never."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """``bf16`` computes in bfloat16, faster on a processor with bfloat16 instructions, slower on others; the weights
    in training stay in float32."""
    check_batch: PositiveInt = 96
    """Walks in a step of verification; twice as many of two and three numbers."""


class ValueRound(Section):
    """One training of the value model: fresh samples of the policy, and how to learn from them."""

    sampling: SamplingConfig = SamplingConfig()
    value: ValueConfig = ValueConfig()


_SECOND_ROUND = ValueRound(
    sampling=SamplingConfig(problems=9_000, states=8_000, count_weights={4: 0.15, 5: 0.35, 6: 0.5}),
    value=ValueConfig(epochs=1.7, check_steps=0, check_share=0.5, exact_from=3),
)


class TrunkConfig(Section):
    """One network from the policy and its value model: fresh samples of the policy, and how to learn from them."""

    sampling: SamplingConfig = SamplingConfig(count_weights={4: 0.2, 5: 0.35, 6: 0.45})
    epochs: float = Field(default=2.0, gt=0)
    batch: PositiveInt = 6
    """Prompts a step, each with all its answers."""
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: PositiveInt = 50
    policy_weight: float = Field(default=2.0, gt=0)
    """Weight of the divergence from the policy, in nats a line, beside the value's cross-entropy."""
    hint_weight: float = Field(default=0.5, ge=0)
    """Weight of the distance between the states of the two trunks at the places where they judge."""
    check_share: float = Field(default=0.45, ge=0, lt=1)
    """The share of steps on fresh walks with planted faults; the others are on the policy's answers."""
    check_batch: PositiveInt = 48
    """Walks in a step of verification; twice as many of two and three numbers."""
    exact_from: int = Field(default=3, ge=0, le=5)
    """With at most so many numbers left the verification is told whether the target can be reached; 0 for never."""


class ReportConfig(Section):
    """The measurements on held-out problems."""

    problems: PositiveInt = 300
    """Problems of each number count."""
    answers: PositiveInt = 64
    """Sampled answers a problem, for pass@k and the value model's figures."""


class BootstrapConfig(Section):
    """Everything that `python -m research.bootstrap make` can be told."""

    name: str = "countdown-tiny"
    """The name the model is served under."""
    seed: int = 0
    threads: PositiveInt = 1
    train_on: bool = False
    """Train the policy of the release that the run starts from on, rather than keep it as it is."""
    network: NetworkConfig = NetworkConfig()
    policy: PolicyConfig = PolicyConfig()
    value_rounds: tuple[ValueRound, ...] = (ValueRound(), _SECOND_ROUND)
    """Each goes on from the value model of the one before, the first from the policy's trunk, or from the value model
    of the release that the run starts from; with none, that value model is kept."""
    trunk: TrunkConfig | None = None
    """Makes one network of policy and value model in the end, which is published in their place."""
    report: ReportConfig = ReportConfig()

    @classmethod
    def read(cls, path: Path) -> BootstrapConfig:
        """Return the settings of a TOML file; raises ``pydantic.ValidationError`` for unknown or wrong keys."""
        return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
