"""A learner that is saved, resumed, exported, adapted and spread over processes learns what a plain one does, be the
value a model or a head on the policy's trunk."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fakes_training import TREES, as_one_of_two, children, with_logprobs_of, with_value_head, write_release
from ramify_trainer.errors import TrainerError
from ramify_trainer.learning import trainee
from ramify_trainer.learning.config import LearningConfig, LoraConfig
from ramify_trainer.learning.learner import Learner
from ramify_trainer.learning.metrics import RoundMetrics
from ramify_trainer.learning.trainee import require_optimizer

SMALL = LearningConfig(
    steps_per_round=3,
    tokens_per_batch=24,
    policy_learning_rate=1e-2,
    value_learning_rate=1e-2,
    kl_beta=0.1,
    value_gradient="trunk",
    warmup_steps=2,
    threads=1,
    tracker="none",
)
LORA = SMALL.model_copy(update={"lora": LoraConfig(rank=4, alpha=8)})
EIGHT = SMALL.model_copy(update={"optimizer": "adamw_8bit"})
MIXED = SMALL.model_copy(update={"imitate": 0.5, "entropy": 0.01, "fill": "signal", "negatives": 0.5})
FALLING = SMALL.model_copy(update={"schedule": "cosine", "schedule_steps": 5})


KINDS = ("model", "trunk")
"""Kinds of a value."""


@pytest.fixture(scope="module", name="bases")
def _bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    threads = torch.get_num_threads()
    two = write_release(tmp_path_factory.mktemp("weights")).path
    yield {"model": two, "trunk": with_value_head(two / "policy", tmp_path_factory.mktemp("trunk"))}
    torch.set_num_threads(threads)


@pytest.fixture(name="base", params=KINDS)
def _base(bases: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    return bases[request.param]


def started(base: Path, config: LearningConfig) -> Learner:
    return Learner.start(config, base / "policy", base / "value", base / "policy", seed=3)


def exported(learner: Learner, folder: Path, base: Path) -> dict[str, Tensor]:
    """All weights, as released."""
    folder.mkdir(exist_ok=True)
    learner.export(folder, base)
    return weights_in(folder)


def weights_in(folder: Path) -> dict[str, Tensor]:
    return {
        f"{file.parent.name}/{name}": tensor
        for file in sorted(folder.glob("*/*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "config",
    [SMALL, LORA, FALLING, EIGHT, MIXED],
    ids=["all weights", "adapters", "falling rate", "8 bits", "mixed objectives"],
)
def test_a_resumed_learner_ends_in_the_weights_of_one_that_was_not_interrupted(
    base: Path, tmp_path: Path, config: LearningConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The models here are small, and have moments of 8 bits all the same.
    monkeypatch.setattr(trainee, "SMALL", 1)
    whole = started(base, config)
    whole.round(TREES[:4], seed=1)
    whole.save(tmp_path / "saved")
    resumed = Learner.resume(config, tmp_path / "saved", base / "policy")
    assert resumed.steps == 3
    figures = [learner.round(TREES[4:], seed=2).figures() for learner in (whole, resumed)]
    assert [{**f, "seconds": 0} for f in figures] == [{**figures[0], "seconds": 0}] * 2
    one, other = exported(whole, tmp_path / "one", base), exported(resumed, tmp_path / "other", base)
    assert equal(one, other)
    assert not equal(one, exported(started(base, config), tmp_path / "base", base))


def test_a_round_says_how_many_tokens_its_steps_have_read(base: Path) -> None:
    learner = started(base, SMALL)
    # Packed, a tree is its prompt and five steps of two tokens each: two trees a step, for each network.
    figures = learner.round(TREES, seed=1).figures()
    assert figures["read_tokens"] == 3 * 2 * 12 * len(learner._trainees)


def test_moments_of_8_bits_teach_what_those_of_32_do(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainee, "SMALL", 1)  # the models here are small
    before = started(base, SMALL)
    fine, coarse = started(base, SMALL), started(base, EIGHT)
    for learner in (fine, coarse):
        learner.round(TREES, seed=1)
    kinds = {t.dtype for r in coarse._trainees.values() for name, t in r.state().items() if "state1/" in name}
    assert kinds == {torch.uint8}
    start, one, other = (
        torch.cat([w.flatten() for r in learner._trainees.values() for w in r.weights().values()])
        for learner in (before, fine, coarse)
    )
    moved, apart = one - start, other - one
    assert moved.norm() > 0
    assert apart.norm() < 0.2 * moved.norm()


def test_a_learner_goes_on_with_the_optimizer_that_it_had(base: Path, tmp_path: Path) -> None:
    started(base, SMALL).save(tmp_path / "saved")
    with pytest.raises(ValueError, match=r'moments of the optimizer "adamw": set learning\.optimizer to'):
        Learner.resume(EIGHT, tmp_path / "saved", base / "policy")


def test_an_optimizer_whose_library_is_missing_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_optimizer(EIGHT)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_optimizer(SMALL)
    with pytest.raises(TrainerError, match=r"needs bitsandbytes: pip install '\.\[8bit\]' in a checkout"):
        require_optimizer(EIGHT)


def test_8_bits_are_not_sharded() -> None:
    with pytest.raises(ValueError, match='optimizer is "adamw_8bit", which cannot be sharded'):
        LearningConfig(optimizer="adamw_8bit", sharding="fsdp2")


def test_the_ratio_is_one_before_the_first_step_and_moves_with_the_weights(base: Path) -> None:
    learner = started(base, SMALL.model_copy(update={"steps_per_round": 1, "warmup_steps": 0}))
    trees = with_logprobs_of(base / "policy", TREES[:4])
    first, second = (learner.round(trees, seed=1).figures() for _ in range(2))
    assert first["policy/ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert first["policy/log_ratio_squared"] == pytest.approx(0, abs=1e-9)
    assert first["policy/clip_share"] == 0
    assert second["policy/log_ratio_squared"] > 1e-4


def test_a_checkpoint_that_was_being_replaced_is_found_again(base: Path, tmp_path: Path) -> None:
    learner = started(base, SMALL)
    learner.save(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / ".saved.previous")
    assert Learner.resume(SMALL, tmp_path / "saved", base / "policy").steps == 0
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        Learner.resume(SMALL, tmp_path / "nowhere", base / "policy")


def test_an_export_is_the_model_that_was_trained_and_brings_its_tokenizer(base: Path, tmp_path: Path) -> None:
    learner = started(base, SMALL)
    before = exported(learner, tmp_path / "before", base)
    assert equal(before, weights_in(base))
    for part in ("policy", "value"):
        names = {path.name for path in (base / part).iterdir()}
        assert {path.name for path in (tmp_path / "before" / part).iterdir()} == names
    tokenizers = [folder / "policy" / "tokenizer.json" for folder in (base, tmp_path / "before")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    learner.round(TREES, seed=1)
    exported(learner, tmp_path / "after", base)
    assert torch.equal(logits(tmp_path / "after" / "policy"), learner.policy(PROBE).logits)
    with pytest.raises(FileExistsError, match="is there already"):
        exported(learner, tmp_path / "after", base)


PROBE = torch.tensor([[63, 10, 97, 10, 98]])


@torch.inference_mode()
def logits(folder: Path) -> Tensor:
    from transformers import AutoModelForCausalLM

    found: Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(PROBE).logits
    return found


def test_merged_adapters_give_what_the_adapted_model_gave_and_leave_it_as_it_was(
    base: Path, tmp_path: Path
) -> None:
    learner = started(base, LORA)
    learner.round(TREES, seed=1)
    adapted = learner.policy(PROBE).logits
    merged = exported(learner, tmp_path / "merged", base)
    assert not any("lora" in name or "base_layer" in name for name in merged)
    assert torch.allclose(logits(tmp_path / "merged" / "policy"), adapted, atol=1e-5)
    assert not torch.allclose(logits(base / "policy"), adapted, atol=1e-3)
    assert torch.equal(learner.policy(PROBE).logits, adapted)


LONGEST = 200.0
"""Seconds that one of several processes may take on a busy machine; one that hangs then says where, and ends."""


SHARDINGS = ("fsdp2", "none")
SPREAD = {
    f"{sharding}, {name}": config.model_copy(update={"sharding": sharding})
    for sharding in SHARDINGS
    for name, config in {"all weights": MIXED, "adapters": LORA}.items()
}
"""Settings under which two processes train: with sharded weights, and with a whole copy in each."""


@pytest.mark.timeout(300)
def test_two_processes_learn_what_one_does(bases: dict[str, Path], tmp_path: Path) -> None:
    """Objective and imitation have each their own weight. A run goes on with another number of processes."""
    for kind in KINDS:
        begun = started(bases[kind], MIXED)
        begun.round(TREES[:4], seed=1)
        begun.save(tmp_path / f"{kind} saved by one")
    answers = children.Queue()
    processes = [children.Process(target=_spread, args=(rank, tmp_path, bases, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        found = [answers.get(timeout=LONGEST) for _ in processes]
        for process in processes:
            process.join(LONGEST)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    assert found[0] == found[1]
    for (case, config), kind in itertools.product(SPREAD.items(), KINDS):
        one = started(bases[kind], config)
        assert found[0][f"{kind} {case}"] == pytest.approx(
            losses(one.round(TREES, seed=1)), rel=1e-4, abs=1e-5
        )
        alone = exported(one, tmp_path / f"{kind} {case} alone", bases[kind])
        assert_same(weights_in(tmp_path / f"{kind} {case}"), alone)
    for kind in KINDS:
        whole = Learner.resume(MIXED, tmp_path / f"{kind} saved by one", bases[kind] / "policy")
        handed = Learner.resume(MIXED, tmp_path / f"{kind} saved by two", bases[kind] / "policy")
        for learner in (whole, handed):
            learner.round(TREES[4:], seed=2)
        alone = exported(whole, tmp_path / f"{kind} one, one", bases[kind])
        assert_same(exported(handed, tmp_path / f"{kind} two, one", bases[kind]), alone)
        assert_same(weights_in(tmp_path / f"{kind} one, two"), alone)


def assert_same(weights: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """The weights of several processes are those of one, up to rounding."""
    assert weights.keys() == alone.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, alone[name], rtol=0, atol=1e-5)


def losses(found: RoundMetrics) -> dict[str, float]:
    """The figures that do not depend on time."""
    return {name: x for name, x in found.figures().items() if name != "seconds"}


def _spread(rank: int, folder: Path, bases: dict[str, Path], answers: Any) -> None:
    """One of two processes."""
    as_one_of_two(rank, folder / "meeting", LONGEST)
    found = {}
    for (case, config), kind in itertools.product(SPREAD.items(), KINDS):
        learner = started(bases[kind], config)
        assert learner._accelerator.num_processes == 2
        found[f"{kind} {case}"] = losses(learner.round(TREES, seed=1))
        (folder / f"{kind} {case}").mkdir(exist_ok=True)
        learner.export(folder / f"{kind} {case}", bases[kind])
    sharded = MIXED.model_copy(update={"sharding": "fsdp2"})
    for kind in KINDS:
        first = started(bases[kind], sharded)
        first.round(TREES[:4], seed=1)
        first.save(folder / f"{kind} saved by two")
        second = Learner.resume(sharded, folder / f"{kind} saved by one", bases[kind] / "policy")
        second.round(TREES[4:], seed=2)
        (folder / f"{kind} one, two").mkdir(exist_ok=True)
        second.export(folder / f"{kind} one, two", bases[kind])
    answers.put(found)
    answers.close()
    answers.join_thread()
    torch.distributed.destroy_process_group()
