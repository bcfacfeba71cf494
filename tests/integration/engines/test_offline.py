"""A spare engine writes the same greedy answers as transformers, and samples from the same distribution."""

from __future__ import annotations

from collections import Counter

import pytest

from fixtures_engines import LiveEngines
from ramify.engines import RequestRefused
from ramify.engines.offline import OfflineDraw, OfflineJob, answer_with
from ramify_trainer.gate import sampling
from ramify_trainer.gate.unserved import AnswerJob, answer_seed

PROBLEMS = ["3 4 5 6 to 24\n", "2 7 to 14\n", "1 2 3 4 5 6 to 33\n"]
SAMPLES = 200


def ignored(*_: int, **__: object) -> None:
    pass


def test_both_samplers_write_the_same_greedy_answers_and_draw_alike(live_engines: LiveEngines) -> None:
    engines = live_engines.engines
    prompts = [engines.tokenizer.encode(problem) for problem in PROBLEMS]
    assert len(set(map(len, prompts))) == len(prompts)
    seeds = [[answer_seed(0, problem, i) for i in range(SAMPLES)] for problem in PROBLEMS]
    policy, ends = live_engines.config.policy, engines.eos_ids
    draws = tuple(OfflineDraw(prompt=p, seeds=s) for p, s in zip(prompts, seeds, strict=True))
    job = OfflineJob(policy=policy, draws=draws, max_tokens=12, ends=tuple(ends))
    ours = live_engines.run(answer_with(engines.by_role["policy"], job, ignored))
    theirs = sampling.draw(AnswerJob(policy, prompts, seeds, 12, ends), ignored)
    assert [group[0] for group in ours] == [group[0] for group in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for at in (0, 1):  # the share of every token there, by four standard deviations of a difference
            shares = [
                Counter(answer[at] for answer in group[1:] if len(answer) > at) for group in (one, other)
            ]
            for token in set(shares[0]) | set(shares[1]):
                p = (shares[0][token] + shares[1][token]) / (2 * SAMPLES)
                apart = abs(shares[0][token] - shares[1][token]) / SAMPLES
                assert apart <= 4 * (2 * p * (1 - p) / SAMPLES) ** 0.5 + 1e-9
        assert all(len(answer) == 12 or answer[-1] in ends for answer in one)


def test_a_prompt_that_leaves_no_room_is_refused_with_the_figures(live_engines: LiveEngines) -> None:
    engine = live_engines.engines.by_role["policy"]
    long = (live_engines.engines.tokenizer.a_token,) * engine.max_model_len
    job = OfflineJob(
        policy=live_engines.config.policy,
        draws=(OfflineDraw(prompt=long, seeds=()),),
        max_tokens=4,
        ends=(),
    )
    with pytest.raises(RequestRefused, match=rf"{len(long)} tokens leaves no room.*context of {len(long)}"):
        live_engines.run(answer_with(engine, job, ignored))
