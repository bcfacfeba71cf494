"""The process that draws for the gate: its answers are taken, and it never keeps the trainer waiting."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from models import write_chat_policy
from ramify.engines.offline import OfflineJob
from ramify_trainer.compute_thread import WorkCancelled
from ramify_trainer.config import SamplerConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate.spare_engine import draw
from ramify_trainer.gate.unserved import AnswerJob, answer_seed

READY = "tell(done=0, total=1, steps=1)"
HANG = "time.sleep(600)"
SAID = """
import json, sys, time
job = json.load(sys.stdin)
def tell(**event):
    print(json.dumps(event), flush=True)
"""


def process(*lines: str) -> tuple[str, ...]:
    """A stand-in for `ramify.engines.offline` that does this with its job."""
    return (sys.executable, "-c", SAID + "\n".join(lines))


@pytest.fixture(name="job")
def _job(tmp_path: Path) -> AnswerJob:
    policy = write_chat_policy(tmp_path / "policy")
    return AnswerJob(policy, [[65, 66]], [[answer_seed(0, "a", 0)]], 8, {258})


def ignored(*_: object) -> None:
    pass


def test_the_process_is_asked_in_full_and_its_answers_are_taken(job: AnswerJob) -> None:
    seen: list[tuple[int, int]] = []
    answering = process(
        READY, "tell(answers=[[job['draws'][0]['prompt'], [job['options']['max_model_len']]]])"
    )
    assert draw(job, SamplerConfig(), lambda *progress: seen.append(progress), ignored, answering) == [
        [[65, 66], [10]]
    ]
    assert seen[-1] == (0, 1)


def test_what_the_process_is_asked_is_a_job_as_it_reads_one(job: AnswerJob) -> None:
    asked = draw(job, SamplerConfig(compile=True), ignored, ignored, process(READY, "tell(answers=job)"))
    read = OfflineJob.model_validate_json(json.dumps(asked))
    draws = [([*one.prompt], [*one.seeds]) for one in read.draws]
    assert draws == list(zip(job.prompts, job.seeds, strict=True))
    assert (read.policy, read.max_tokens, set(read.ends)) == (job.policy, job.max_tokens, job.ends)
    assert (read.options.compile, read.options.max_model_len) == (True, 10)


def test_the_command_itself_reads_its_job_and_says_why_it_cannot_do_it(job: AnswerJob) -> None:
    (job.policy / "model.safetensors").unlink()
    with pytest.raises(TrainerError, match=r"failed: the policy directory .* holds no weights"):
        draw(job, SamplerConfig(), ignored, ignored)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ((READY, "sys.exit('out of memory')"), "ended with status 1.*out of memory"),
        (("tell(error='it is no model')",), "failed: it is no model"),
        (("tell(starting='loading weights')", HANG), "was not ready within 2 s"),
        ((READY, HANG), "made no step within 1 s"),
    ],
)
def test_an_engine_that_fails_is_named_with_what_to_do(
    job: AnswerJob, lines: tuple[str, ...], complaint: str
) -> None:
    config = SamplerConfig(start_seconds=2 if READY not in lines else 60, stall_seconds=1)
    with pytest.raises(TrainerError, match=f"(?s){complaint}") as failed:
        draw(job, config, ignored, ignored, process(*lines))
    assert "goes on from here at the next start" in str(failed.value)


def test_an_engine_that_says_the_same_again_counts_as_standing_still(job: AnswerJob) -> None:
    told: list[tuple[int, int]] = []
    repeating = process(READY, "while True: tell(done=0, total=1, steps=1); time.sleep(0.2)")
    with pytest.raises(TrainerError, match="made no step within 1 s"):
        draw(job, SamplerConfig(stall_seconds=1), lambda *progress: told.append(progress), ignored, repeating)
    assert told == [(0, 1), (0, 1)], "once at the start, and once for its first step"


def test_work_that_is_cancelled_leaves_no_process(job: AnswerJob, tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    told: list[tuple[int, int]] = []

    def cancelled() -> None:
        if (0, 2) in told:
            raise WorkCancelled

    waiting = process(
        f"open({json.dumps(str(kept))}, 'w').write(str(__import__('os').getpid()))",
        "tell(done=0, total=2, steps=1)",
        HANG,
    )
    with pytest.raises(WorkCancelled):
        draw(job, SamplerConfig(), lambda *progress: told.append(progress), cancelled, waiting)
    with pytest.raises(ProcessLookupError):
        os.kill(int(kept.read_text()), 0)


def test_every_answer_has_a_seed_of_its_own_that_the_run_decides() -> None:
    seeds = [answer_seed(run, problem, i) for run in (0, 1) for problem in ("a", "b") for i in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == answer_seed(0, "a", 0)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
