"""GRPO as TRL trains it, a peer: the same base, problems, verifier and optimizer steps, sampled by transformers.

    pip install --no-deps -r research/compare/requirements.txt

Each step draws answers to its own problems from the policy as it is, as TRL does unless told otherwise, while the loops
draw a whole round's trees from one release. Rate and AdamW are set as for the loops; loss and advantages are TRL's
own: every token weighs the same, a group's rewards are divided by their deviation, and there is no KL term.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from ramify.files import move, remove
from ramify.rewards.verifier import Example
from ramify.tokens import eos_ids, text_of
from ramify_trainer.config import base_release
from ramify_trainer.gate.policy_scores import score_policy
from ramify_trainer.loop.collection import problems_of
from ramify_trainer.loop.rounds import PhaseProgress
from research.compare.config import ArmRun, CompareConfig
from research.compare.grading import is_right
from research.compare.points import POINTS, Point, keep, read
from research.compare.scores import score

if TYPE_CHECKING:
    from trl import GRPOConfig

INSTALL = "pip install --no-deps -r research/compare/requirements.txt"
SPENT = "spent.json"


def installed() -> bool:
    """Tell whether TRL can be imported."""
    return find_spec("trl") is not None


def policy_after(folder: Path, round_: int) -> Path:
    """Return the Hugging Face directory of a run's policy after a round."""
    return folder / "policies" / str(round_)


def learn(config: CompareConfig, run: ArmRun, folder: Path, tell: PhaseProgress) -> None:
    """Train unless that is done, then measure what has not been measured.

    A training that was stopped begins again: it takes minutes."""
    if not policy_after(folder, config.rounds_of(run.arm)).exists():
        _train(config, run, folder, tell)
    points = read(folder / POINTS)
    while len(points) <= config.rounds_of(run.arm):
        points.append(_measured(config, run, folder, len(points), tell))
        keep(points, folder / POINTS)


@dataclass(slots=True)
class Spent:
    """Costs of a run up to the end of a round."""

    tokens: int = 0
    """Sampled, end tokens included."""
    read: int | None = None
    """Read in the optimizer steps; None in a run that was made before they were counted."""
    right: int = 0
    """Answers of this round that were right."""
    answers: int = 0
    """Answers of this round."""
    seconds: float = 0.0
    """Seconds of this round."""


def _measured(config: CompareConfig, run: ArmRun, folder: Path, round_: int, tell: PhaseProgress) -> Point:
    policy = policy_after(folder, round_) if round_ else base_release(config.base).policy_path
    spent = Spent(**json.loads((policy / SPENT).read_bytes())) if round_ else Spent(read=0)
    kept = folder / "state" / "held_out" / f"{round_}.json"

    def told(done: int, total: int) -> None:
        tell(f"{run.name}: measured", done, total)

    figures = score(partial(score_policy, policy, config.held_out, run.seed, kept, told=told)).figures()
    return Point(
        arm=run.arm.name,
        seed=run.seed,
        round=round_,
        steps=round_ * config.learning.steps_per_round,
        tokens=spent.tokens,
        read_tokens=spent.read,
        training={"draws/pass_at_1": spent.right / spent.answers} if spent.answers else {},
        seconds=spent.seconds,
        greedy=figures["greedy"],
        mean_at_k=figures["mean_at_k"],
    )


def _train(config: CompareConfig, run: ArmRun, folder: Path, tell: PhaseProgress) -> None:
    """Take all steps, and leave the policy of every round in `folder`."""
    from datasets import Dataset
    from trl import GRPOTrainer

    base = base_release(config.base).policy_path
    tokenizer = AutoTokenizer.from_pretrained(base)
    learning = config.learning_of(run.arm)
    if learning.threads is not None:
        torch.set_num_threads(learning.threads)
    examples = [
        e for i in range(config.rounds_of(run.arm)) for e in problems_of(config.collect, run.seed, i + 1)
    ]
    grader = _Grader(examples, tokenizer, eos_ids(base, tokenizer))
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        processing_class=tokenizer,
        reward_funcs=grader.rewards,
        args=_settings(config, run, folder),
        train_dataset=Dataset.from_list([_question(e) | {"place": i} for i, e in enumerate(examples)]),
        callbacks=[_Rounds(config, run, folder, grader, tokenizer, tell)],
    )
    trainer.train()


def _settings(config: CompareConfig, run: ArmRun, folder: Path) -> GRPOConfig:
    """Return TRL's settings: a step has its share of a round's problems, in their order."""
    from trl import GRPOConfig

    assert run.arm.trl is not None
    learning, generations = config.learning_of(run.arm), run.arm.trl.generations
    steps = learning.steps_per_round
    return GRPOConfig(
        output_dir=str(folder / "trl"),
        seed=run.seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,  # weights and passes are float32: transformers samples from the weights that are trained
        per_device_train_batch_size=config.collect.problems // steps * generations,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        num_generations=generations,
        max_completion_length=config.held_out.max_tokens,
        max_steps=config.rounds_of(run.arm) * steps,
        shuffle_dataset=False,
        learning_rate=learning.policy_learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=learning.warmup_steps,
        weight_decay=learning.weight_decay,
        adam_beta2=learning.adam_beta2,
        max_grad_norm=learning.max_grad_norm,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _question(example: Example) -> dict[str, Any]:
    return {"prompt": [message.fields() for message in example.messages] or example.prompt}


class _Grader:
    """The reward: 1 for an answer that came to its end and that the verifier calls right, else 0."""

    def __init__(self, examples: list[Example], tokenizer: Any, ends: frozenset[int]) -> None:
        self.examples, self.tokenizer, self.ends = examples, tokenizer, ends
        self.spent = Spent()

    async def rewards(self, completion_ids: list[list[int]], place: list[int], **_: Any) -> list[float]:
        """Return the rewards of one step's answers, as TRL asks for them."""
        given = [float(await self._right(i, ids)) for i, ids in zip(place, completion_ids, strict=True)]
        self.spent.tokens += sum(map(len, completion_ids))
        self.spent.answers += len(given)
        self.spent.right += int(sum(given))
        return given

    async def _right(self, place: int, ids: list[int]) -> bool:
        ended = bool(ids) and ids[-1] in self.ends
        return ended and await is_right(self.examples[place], text_of(self.tokenizer, ids))


class _Rounds(TrainerCallback):  # type: ignore[misc]
    """Keeps the policy whenever a round's steps are done, and what it has cost."""

    def __init__(
        self,
        config: CompareConfig,
        run: ArmRun,
        folder: Path,
        grader: _Grader,
        tokenizer: Any,
        tell: PhaseProgress,
    ) -> None:
        self.config, self.run, self.folder = config, run, folder
        self.grader, self.tokenizer, self.tell = grader, tokenizer, tell
        self.began = time.monotonic()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step, steps = state.global_step, self.config.learning.steps_per_round
        self.tell(f"{self.run.name}: trained", step, state.max_steps)
        if step % steps:
            return
        spent = self.grader.spent
        spent.seconds = round(time.monotonic() - self.began, 3)
        spent.read = int(state.num_input_tokens_seen)  # TRL counts a step's prompts and answers
        self._keep(model, policy_after(self.folder, step // steps), spent)
        self.grader.spent, self.began = Spent(tokens=spent.tokens), time.monotonic()

    def _keep(self, model: Any, folder: Path, spent: Spent) -> None:
        draft = folder.with_name(f".{folder.name}.unfinished")
        remove(draft)
        model.save_pretrained(draft)
        self.tokenizer.save_pretrained(draft)
        (draft / SPENT).write_text(json.dumps(asdict(spent)))
        remove(folder)  # of a training that was stopped
        move(draft, folder)
