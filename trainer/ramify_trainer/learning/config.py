"""The learner's settings: the group `[learning]` of the trainer's TOML file. Unknown keys are refused."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

__all__ = ["LearningConfig", "LoraConfig", "Section"]

Objective = Literal["tree_ppo", "path_ppo", "visits", "sft"]


class Section(BaseModel):
    """A table of a settings file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(Section):
    """Low-rank adapters in place of all weights (needs `peft`)."""

    rank: PositiveInt = 16
    """Rank of the adapters' matrices."""
    alpha: PositiveInt = 32
    """The adapters' output is scaled by alpha / rank."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the modules that get one, or `all-linear`."""
    publish: Literal["merged", "adapter"] = "merged"
    """Policy of a release: whole weights with the adapters merged in, or the adapters alone, megabytes that stand on
    the release they were begun on (the server then needs `engine.adapters`). A value model's are always merged."""


class LearningConfig(Section):
    """Learning from one round's trees."""

    objective: Objective = "tree_ppo"
    """Lesson of a tree: advantages of all its nodes (`tree_ppo`) or of the path to its answer (`path_ppo`), imitation
    of the siblings' visits (`visits`), or of right answers (`sft`)."""
    train_policy: bool = True
    """Train the policy."""
    train_value: bool = True
    """Train the value."""
    value_gradient: Literal["head", "trunk"] = "head"
    """If the value is a head on the policy's trunk: its loss moves the head alone, which reads the trunk's states as
    they are (`head`), or the trunk too, together with the policy's loss, as AlphaZero's does (`trunk`). Without
    `train_policy` the head alone moves in any case."""
    value_coefficient: PositiveFloat = 0.1
    """Weight of the value's loss beside the policy's, if the value is a head on the policy's trunk."""

    ratio: Literal["ppo", "cispo"] = "ppo"
    """The surrogate of the ratio objectives: PPO's clipped one, or CISPO's (arXiv 2506.13585), under which every
    token keeps a gradient."""
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """The ratio is clipped below 1 - clip_low."""
    clip_high: NonNegativeFloat = 0.28
    """The ratio is clipped above 1 + clip_high."""
    ratio_cap: float = Field(default=5.0, ge=1)
    """Importance ratios beyond this are truncated to it, whatever the advantage's sign."""
    max_staleness: NonNegativeInt = 4
    """Releases between the one that wrote a tree and the served one, beyond which ratio objectives refuse it."""
    kl_beta: NonNegativeFloat = 0.01
    """Weight of KL(policy, reference); 0 loads no reference."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the policy's entropy, as a bonus."""

    baseline: Literal["siblings", "ancestors", "value"] = "ancestors"
    """`tree_ppo`: a child is compared with its siblings alone, or also with its ancestors' draws or the value model's
    estimate, which gives lone children something to be compared with."""
    baseline_weight: PositiveFloat = 1.0
    """Draws that the baseline from outside counts for (`ancestors`, `value`)."""
    normalise: bool = False
    """Divide a child's advantage by its siblings' standard deviation."""
    child_weight: Literal["sqrt_leaves", "multiplicity", "one"] = "sqrt_leaves"
    """A child's weight: m·√(labelled leaves below), m, or 1."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """`path_ppo`: λ of the generalised advantage estimate."""
    visit_target: Literal["visits", "completed_q"] = "visits"
    """`visits`: what siblings are imitated in proportion to."""
    completed_q_visits: NonNegativeFloat = 50.0
    """c_visit of σ(q) = (c_visit + max N)·c_scale·q."""
    completed_q_scale: NonNegativeFloat = 0.1
    """c_scale of the same."""
    correct: float = Field(default=1.0, gt=0, le=1)
    """`sft`: least outcome of a trajectory that is imitated."""

    lambda_return: float = Field(default=1.0, ge=0, le=1)
    """λ of the value's targets; 1 is Monte Carlo."""
    value_loss: Literal["bce", "mse"] = "bce"
    """Cross-entropy, or squared error, of the value to its target."""

    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """AdamW with its two moments in float32, or in 8 bits: a quarter of that memory, by bitsandbytes (the extra
    `8bit`). A learner that was saved with the other one is refused."""
    policy_learning_rate: PositiveFloat = 3e-4
    """AdamW's learning rate of the policy, its trunk included."""
    value_learning_rate: PositiveFloat = 3e-4
    """AdamW's learning rate of the value model, or of the value head."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's weight decay."""
    adam_beta2: float = Field(default=0.99, gt=0, lt=1)
    """AdamW's β₂; β₁ is 0.9."""
    max_grad_norm: PositiveFloat = 1.0
    """Norm above which a gradient is scaled down to it; those of trunk and value head apart."""
    warmup_steps: NonNegativeInt = 10
    """Optimizer steps of the whole run over which the learning rate rises."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after that: it stays, or falls in a line or along half a cosine."""
    schedule_steps: PositiveInt | None = None
    """Optimizer steps of the whole run at which the learning rate has fallen to its floor; needed if it falls."""
    schedule_floor: float = Field(default=0.1, ge=0, le=1)
    """Share of the learning rate that is left at the end of the fall, and from then on."""
    steps_per_round: PositiveInt = 40
    """Optimizer steps of one round, at most."""
    epochs: PositiveFloat = 4.0
    """Passes over a round's trees, at most."""
    tokens_per_batch: PositiveInt = 4096
    """Trained tokens of one optimizer step; a node's tokens count once."""
    accumulation: PositiveInt = 1
    """Forward passes that one optimizer step is split into. Memory, not the result, depends on it."""
    max_pack_tokens: PositiveInt = 2048
    """Tokens of one packed sequence; larger trees are split by subtrees. A model whose layers have windows, chunks or
    recurrences is trained path by path instead, which the learner finds out by itself and says."""

    gradient_checkpointing: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again: a third more work, a fraction of
    the memory. The result is the same."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` computes in bfloat16; the weights that are trained stay in float32."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention as transformers computes it. A model for which it has no `sdpa` needs `eager`."""
    sharding: Literal["none", "fsdp2"] = "none"
    """With several processes: a whole copy in each (data parallel), or sharded weights."""
    lora: LoraConfig | None = None
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "tensorboard"
    """Program that the figures of every round are sent to."""
    tracker_folder: str | None = None
    """Folder that a tracker writes to; without it nothing is tracked."""
    threads: PositiveInt | None = None
    """CPU threads of torch; none: torch's own choice."""

    @model_validator(mode="after")
    def schedule_has_an_end(self) -> Self:
        if (self.schedule == "constant") != (self.schedule_steps is None):
            raise ValueError("schedule_steps goes with schedule linear or cosine: give both, or neither")
        if self.schedule_steps is not None and self.schedule_steps <= self.warmup_steps:
            raise ValueError(
                f"schedule_steps is {self.schedule_steps}: it must be above warmup_steps, {self.warmup_steps}"
            )
        return self

    @model_validator(mode="after")
    def optimizer_can_be_sharded(self) -> Self:
        if self.optimizer == "adamw_8bit" and self.sharding != "none":
            raise ValueError('optimizer is "adamw_8bit", which cannot be sharded: set sharding to "none"')
        return self

    @model_validator(mode="after")
    def something_is_trained(self) -> Self:
        if not (self.train_policy or self.train_value):
            raise ValueError("train_policy and train_value are both false: set one of them to true")
        return self

    @property
    def publishes_adapter(self) -> bool:
        """True if a release holds the policy's adapters alone."""
        return self.lora is not None and self.lora.publish == "adapter"

    @property
    def judges(self) -> bool:
        """True if states are judged before a round's first step, by the value as it is then."""
        return self.train_policy and self.objective == "path_ppo"

    @property
    def needs_ratio(self) -> bool:
        """True if the objective compares with the logged behaviour log-probs."""
        return self.objective in ("tree_ppo", "path_ppo")
