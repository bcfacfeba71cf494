"""The learner's settings: the group `[learning]` of the trainer's TOML file. Unknown keys are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

__all__ = ["LearningConfig", "LoraConfig", "Phase", "Section"]

Objective = Literal["tree_ppo", "path_ppo", "visits", "sft"]
Figure = Literal[
    "policy/entropy",
    "policy/log_ratio_squared",
    "policy/kl",
    "draws/entropy",
    "draws/pass_at_1",
    "draws/pass_at_8",
    "lessons/dropped_share",
    "lessons/right_answers",
    "solved",
    "gate/greedy",
    "gate/mean_at_k",
]
"""Figures of a round that a phase may wait for. All but the gate's are of its training."""


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


class Phase(BaseModel):
    """Settings of `[learning]` that change during a run: it begins with a round, in its turn, and then stays.

    Beside one of the conditions below it takes the settings to change, under their own names. The networks, what is
    trained of them and the optimizer stay for the whole run."""

    model_config = ConfigDict(extra="allow", frozen=True)

    from_round: PositiveInt | None = None
    """Begins with this round."""
    from_step: PositiveInt | None = None
    """Begins with the first round that goes on from so many optimizer steps."""
    figure: Figure | None = None
    """Begins with the round after the first in which this figure is `below` or `above` a level."""
    below: float | None = None
    """Level of `figure`."""
    above: float | None = None
    """Level of `figure`."""

    @property
    def changes(self) -> dict[str, Any]:
        """The settings to change."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def one_condition(self) -> Self:
        conditions = [self.from_round, self.from_step, self.figure]
        if sum(condition is not None for condition in conditions) != 1:
            raise ValueError("give one of from_round, from_step and figure")
        levels = sum(level is not None for level in (self.below, self.above))
        if levels != (self.figure is not None):
            raise ValueError("give below or above with figure, one of them, and without it neither")
        return self

    @model_validator(mode="after")
    def changes_what_can_change(self) -> Self:
        if not self.changes:
            raise ValueError("give a setting of [learning] to change")
        for name in self.changes:
            if name not in LearningConfig.model_fields:
                raise ValueError(f"{name}: [learning] has no such setting")
            if name not in CHANGEABLE:
                raise ValueError(f"{name} stays for the whole run; what can change: {', '.join(CHANGEABLE)}")
        return self


CHANGEABLE = (
    "objective",
    "imitate",
    "correct",
    "answer_weight",
    "replay_rounds",
    "replay_answers",
    "ratio",
    "clip_low",
    "clip_high",
    "ratio_cap",
    "negatives",
    "kl_beta",
    "entropy",
    "baseline",
    "baseline_weight",
    "normalise",
    "child_weight",
    "gae_lambda",
    "visit_target",
    "completed_q_visits",
    "completed_q_scale",
    "lambda_return",
    "policy_learning_rate",
    "value_learning_rate",
    "max_grad_norm",
    "steps_per_round",
    "epochs",
    "tokens_per_batch",
    "fill",
    "accumulation",
)
"""Settings that a phase may change."""


class LearningConfig(Section):
    """Learning from one round's trees."""

    objective: Objective = "tree_ppo"
    """Lesson of a tree: advantages of all its nodes (`tree_ppo`) or of the path to its answer (`path_ppo`), imitation
    of the siblings' visits (`visits`), or of right answers (`sft`)."""
    imitate: NonNegativeFloat = 0.0
    """α: weight of -log π on right answers, beside the objective's loss. Each of the two is a mean over its own tokens
    of a step, so that α means the same whatever the step holds. Right answers are imitated whoever drew them."""
    correct: float = Field(default=1.0, gt=0, le=1)
    """Least outcome of an answer that is imitated (`sft`, `imitate`)."""
    answer_weight: Literal["per_problem", "one"] = "per_problem"
    """Weight of an imitated answer: 1/n if n different answers to its problem are, so that easy problems do not
    outweigh hard ones; or 1."""
    replay_rounds: NonNegativeInt = 0
    """Rounds before this one whose right answers are imitated again (`sft`, `imitate`)."""
    replay_answers: PositiveInt = 10_000
    """Most of them that are: the newest."""
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
    token keeps a gradient, weighted by its ratio, which has no bound but `ratio_cap`."""
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """`ppo`: the ratio is clipped below 1 - clip_low."""
    clip_high: NonNegativeFloat = 0.28
    """`ppo`: the ratio is clipped above 1 + clip_high."""
    ratio_cap: float = Field(default=5.0, ge=1)
    """Importance ratios beyond this are truncated to it, whatever the advantage's sign."""
    negatives: float = Field(default=1.0, ge=0, le=1)
    """`tree_ppo`: share of the wrong answers that are learned from, drawn anew each round. What has a negative
    advantage and leads to none of them, and to no right one, teaches nothing; what is kept weighs no more for it."""
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
    """A child's weight: d·√(labelled leaves below), d, or 1, with d its draws: its multiplicity, or without replacement
    what it stands for."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """`path_ppo`: λ of the generalised advantage estimate."""
    visit_target: Literal["visits", "completed_q"] = "visits"
    """`visits`: what siblings are imitated in proportion to: the search's visits, or the policy improved by what the
    answers below turned out to be (Gumbel MuZero's completed Q)."""
    completed_q_visits: NonNegativeFloat = 50.0
    """c_visit of σ(q) = (c_visit + max N)·c_scale·q."""
    completed_q_scale: NonNegativeFloat = 0.1
    """c_scale of the same."""

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
    """Tokens of one optimizer step; a node's tokens count once."""
    fill: Literal["tokens", "signal"] = "tokens"
    """Tokens that a step of the policy is filled up with: all `tokens` of its trees, or those that teach (`signal`:
    advantage not 0, or imitated). Trees in which nothing teaches are left out in any case."""
    accumulation: PositiveInt = 1
    """Forward passes that one optimizer step is split into; twice as many if it holds twice `tokens_per_batch` tokens
    (`fill`), and so on. Memory, not the result, depends on it."""
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
    phases: tuple[Phase, ...] = ()
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

    @model_validator(mode="after")
    def imitation_is_said_once(self) -> Self:
        if self.objective == "sft" and self.imitate:
            raise ValueError(
                f'imitate is {self.imitate:g}, and objective "sft" imitates already: set imitate to 0'
            )
        return self

    @model_validator(mode="after")
    def phases_are_in_order(self) -> Self:
        for name in ("from_round", "from_step"):
            starts = [start for phase in self.phases if (start := getattr(phase, name)) is not None]
            if any(later <= earlier for earlier, later in pairwise(starts)):
                raise ValueError(f"phases: {name} must rise from phase to phase, not {starts}")
        for i in range(len(self.phases)):
            try:
                self.after(i + 1)
            except ValidationError as error:
                faults = "; ".join(
                    f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors()
                )
                raise ValueError(f"phases.{i}: {faults}") from None
        return self

    def after(self, begun: int) -> Self:
        """Return the settings when so many phases have begun, each on top of those before it; no phase is left."""
        changes: dict[str, Any] = {"phases": ()}
        for phase in self.phases[:begun]:
            changes |= phase.changes
        return type(self).model_validate({**self.model_dump(), **changes})

    @property
    def over_run(self) -> list[Self]:
        """The settings of every part of a run: before the first phase, and from each of them on."""
        return [self.after(begun) for begun in range(len(self.phases) + 1)]

    @property
    def publishes_adapter(self) -> bool:
        """True if a release holds the policy's adapters alone."""
        return self.lora is not None and self.lora.publish == "adapter"

    @property
    def imitates(self) -> bool:
        """True if right answers are imitated."""
        return self.train_policy and (self.objective == "sft" or self.imitate > 0)

    @property
    def judges(self) -> bool:
        """True if states are judged before a round's first step, by the value as it is then."""
        return self.train_policy and self.objective == "path_ppo"

    @property
    def needs_ratio(self) -> bool:
        """True if the objective compares with the logged behaviour log-probs."""
        return self.objective in ("tree_ppo", "path_ppo")
