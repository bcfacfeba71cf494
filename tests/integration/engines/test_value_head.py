"""A value head on the policy's trunk, in an engine of its own: values beside draws, hurdles, the scorer, a reload."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from fixtures_engines import SERVING, LiveEngines, model_paths, until
from ramify.engines import EngineConfig, EngineOptions, Engines, EngineStartFailed, Text
from ramify.engines.scorer import sigmoid
from ramify.search.cutting import action_ends
from ramify.search.protocols import JudgingPolicy, SampleAborted
from ramify.search.records import Action, Continuation, Departure, Hurdle, Sampling

PROMPT = "3 5 7 8 to 24\n"
CALIBRATION = (0.7, -0.2)
TOLERANCE = 1e-4
"""Largest difference of a value: the engine and the reference both compute in float32, in another order."""
STEPS = Action()
NEVER = Hurdle(rate=0.0, mean_length=0.0)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    weight = torch.randn(1, 192, generator=torch.Generator().manual_seed(1)) / 8
    save_file({"weight": weight, "bias": torch.tensor([0.3])}, path)
    return path


@pytest.fixture(scope="module")
def live(head: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngines]:
    policy, _ = model_paths(tmp_path_factory.mktemp("models"))
    options = EngineOptions(dtype="float32", compile=False)
    serving = replace(SERVING, calibration=CALIBRATION)
    live = LiveEngines(EngineConfig(policy, serving=serving, options=options, value_head=head))
    yield live
    live.close()


@pytest.fixture(scope="module")
def reference(live: LiveEngines) -> torch.nn.Module:
    """The same trunk in plain transformers."""
    return AutoModelForCausalLM.from_pretrained(live.config.policy, dtype=torch.float32).eval()  # type: ignore[no-any-return]


def policy_of(engines: Engines) -> JudgingPolicy:
    assert isinstance(engines.policy, JudgingPolicy)
    return engines.policy


def draw(
    live: LiveEngines, seeds: range, hurdle: Hurdle = NEVER, action: Action = STEPS
) -> list[Continuation]:
    prefix, sampling = live.engines.tokenizer.encode(PROMPT), Sampling(max_tokens=40)
    asked = policy_of(live.engines).write_on(prefix, sampling, seeds, action=action, hurdle=hurdle, length=0)
    return live.run(asked)


def values_of(
    live: LiveEngines, reference: torch.nn.Module, prefix: list[int], drawn: Continuation
) -> list[float]:
    """The value as far as each token: at the state after it, or before it if it only closes."""
    head = load_file(live.config.value_head or "")
    with torch.no_grad():
        states = reference.model(torch.tensor([[*prefix, *drawn.token_ids]])).last_hidden_state[0]  # type: ignore[operator, union-attr]
        logits = (states @ head["weight"][0] + head["bias"]).tolist()
    a, b = CALIBRATION
    closing = live.engines.tokenizer.closing
    places = [len(prefix) + i - (token in closing) for i, token in enumerate(drawn.token_ids)]
    return [sigmoid(a * logits[place] + b) for place in places]


def test_values_of_draws_are_those_of_the_trunk_in_transformers(
    live: LiveEngines, reference: torch.nn.Module
) -> None:
    prefix = live.engines.tokenizer.encode(PROMPT)
    for drawn in live.run(live.engines.policy.sample(prefix, Sampling(max_tokens=40), range(8))):
        assert drawn.finish == "eos"
        assert drawn.values == pytest.approx(values_of(live, reference, prefix, drawn), abs=TOLERANCE)


def test_the_value_of_a_draw_that_is_cut_is_known_at_its_last_token_only_if_that_closes(
    live: LiveEngines, reference: torch.nn.Module
) -> None:
    prefix = live.engines.tokenizer.encode(PROMPT)
    for sampling in (Sampling(max_tokens=3), Sampling(max_tokens=40, stop=("\n",))):
        for drawn in live.run(live.engines.policy.sample(prefix, sampling, range(4))):
            expected: list[float | None] = [*values_of(live, reference, prefix, drawn)]
            if drawn.token_ids[-1] not in live.engines.tokenizer.closing:
                assert drawn.values[-1] is None
                expected[-1] = None
            assert [v is None for v in drawn.values] == [v is None for v in expected]
            assert drawn.values[:-1] == pytest.approx(expected[:-1], abs=TOLERANCE)


def test_draws_that_depart_are_judged_and_given_up_as_others_are(
    live: LiveEngines, reference: torch.nn.Module
) -> None:
    prefix, sampling = live.engines.tokenizer.encode(PROMPT), Sampling(max_tokens=40)
    (line,) = live.run(live.engines.policy.sample(prefix, Sampling(max_tokens=40, stop=("\n",)), [3]))
    left = [Departure(line.token_ids[:3], line.logprobs[:3], (line.token_ids[3],), 0.5)] * 16
    given_up = []
    for hurdle in (NEVER, Hurdle(rate=0.02, mean_length=30)):
        asked = policy_of(live.engines).write_on(
            *(prefix, sampling, range(16)), action=STEPS, hurdle=hurdle, length=0, departures=left
        )  # type: ignore[call-arg]
        drawn = live.run(asked)
        given_up.append(sum(one.finish == "abandoned" for one in drawn))
        for one in drawn:
            expected = values_of(live, reference, prefix, one)
            assert one.values[:3] == (None, None, None)
            known = [(v, e) for v, e in zip(one.values[3:], expected[3:], strict=True) if v is not None]
            assert [v for v, _ in known] == pytest.approx([e for _, e in known], abs=TOLERANCE)
            below = [expected[end - 1] < hurdle.at(end) for end in action_ends(one.text, one.ends, STEPS)]
            assert not any(below[:-1])
            assert one.finish != "abandoned" or below[-1]
    assert given_up[0] == 0 < given_up[1]


def test_values_hold_with_cached_prefixes_in_batches_of_all_kinds(
    live: LiveEngines, reference: torch.nn.Module
) -> None:
    engines, tokenizer = live.engines, live.engines.tokenizer
    long = tokenizer.encode(PROMPT) + tokenizer.encode_continuation(
        "8 * 3 = 24\n7 + 5 = 12\n24 - 12 = 12\n" * 2
    )

    async def crowded() -> list[list[Continuation]]:
        return await asyncio.gather(
            *(
                engines.policy.sample(long, Sampling(max_tokens=12, temperature=t), range(6))
                for t in (0.0, 1.0, 1.5)
            ),
            engines.policy.next_tokens(long, 3, 1.0),
            engines.policy.sample(long, Sampling(max_tokens=12, stop=(" = 1", "\n\n")), range(6)),
        )

    for _ in range(2):  # the second time the prefix is cached
        for drawn in live.run(crowded()):
            for one in drawn:
                expected = values_of(live, reference, long, one)
                known = [(v, e) for v, e in zip(one.values, expected, strict=True) if v is not None]
                assert len(known) >= len(one.values) - 1
                assert [v for v, _ in known] == pytest.approx([e for _, e in known], abs=TOLERANCE)


ACTIONS = {
    "steps": Action(),
    "chunks": Action("chunk", (), 4),
    "matched on text": Action("step", ("= 1", "- "), 9),
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_a_hurdle_ends_the_draws_that_it_should_in_the_step_in_which_the_value_is_known(
    live: LiveEngines, action: Action
) -> None:
    from ramify.search.cutting import action_ends

    hurdle, closing = Hurdle(rate=0.03, mean_length=24.0), live.engines.tokenizer.closing
    ends = set()
    for whole, held in zip(draw(live, range(24)), draw(live, range(24), hurdle, action), strict=True):
        expected = len(whole.token_ids)
        for end in action_ends(whole.text, whole.ends, action):
            known = whole.values[end - 1]
            if end < len(whole.token_ids) and known is not None and known < hurdle.at(end):
                expected = end + (whole.token_ids[end - 1] not in closing)
                break
        assert held.token_ids == whole.token_ids[:expected]
        assert held.finish == ("abandoned" if expected < len(whole.token_ids) else whole.finish)
        ends.add(held.finish)
    assert ends == {"abandoned", "eos"}


def test_the_scorer_judges_by_the_same_head_and_reads_past_a_closing_token(live: LiveEngines) -> None:
    prefix = live.engines.tokenizer.encode(PROMPT)
    drawn = draw(live, range(6))
    scores = live.run(live.engines.scorer.score([[*prefix, *one.token_ids] for one in drawn]))
    assert [score.value for score in scores] == pytest.approx(
        [one.values[-1] for one in drawn], abs=TOLERANCE
    )
    (measured,) = live.run(live.engines.measure([Text(tuple(prefix), drawn[0].token_ids)], CALIBRATION))
    assert measured.value == pytest.approx(drawn[0].values[-1], abs=TOLERANCE)


def test_an_aborted_draw_with_a_hurdle_says_what_it_had(live: LiveEngines) -> None:
    async def go() -> int:
        engines = live.engines
        prefix, long = engines.tokenizer.encode(PROMPT), Sampling(max_tokens=90, temperature=2.0)
        asked = policy_of(engines).write_on(prefix, long, range(32), action=STEPS, hurdle=NEVER, length=0)
        doomed, stats = asyncio.create_task(asked), engines.by_role["policy"].stats
        begun = stats.steps
        await until(lambda: stats.steps >= begun + 4)
        doomed.cancel()
        with pytest.raises(SampleAborted) as aborted:
            await doomed
        return aborted.value.tokens

    assert live.run(go()) >= 32


def test_another_head_is_taken_with_other_weights_and_a_broken_one_before_them(
    live: LiveEngines, head: Path, tmp_path: Path
) -> None:
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.safetensors"
    tensors = load_file(head)
    save_file({name: -tensor for name, tensor in tensors.items()}, other)
    save_file({**tensors, "bias": torch.tensor([float("nan")])}, broken)
    before = draw(live, range(4))

    async def reload(path: Path) -> None:
        async with live.engines.exclusive(5.0):
            await live.engines.reload(live.config.policy, None, path)

    with pytest.raises(EngineStartFailed, match="bias holds NaN"):
        live.run(reload(broken))
    for one, was in zip(draw(live, range(4)), before, strict=True):
        assert one.values == pytest.approx(was.values, abs=TOLERANCE)
    live.run(reload(other))
    _, b = CALIBRATION
    for one, was in zip(draw(live, range(4)), before, strict=True):
        assert one.token_ids == was.token_ids
        turned = [sigmoid(2 * b - math.log(v / (1 - v))) for v in was.values if v is not None]
        assert one.values == pytest.approx(turned, abs=TOLERANCE)
    live.run(reload(head))


class GivenSteps:
    """In a model runner's place, on a GPU: a step's tokens come later, and log-probabilities of a prompt are
    computed by the same method as those of next tokens."""

    device = "cpu"

    def __init__(self) -> None:
        self.compute_logits = lambda states: states @ torch.ones(4, 2)

    def get_model(self) -> GivenSteps:
        return self

    def sample_tokens(self, grammar_output: None) -> Any:
        from vllm.v1.outputs import AsyncModelRunnerOutput, ModelRunnerOutput

        class Later(AsyncModelRunnerOutput):  # type: ignore[misc]
            def get_output(self) -> Any:
                return ModelRunnerOutput(["a", "b"], {"a": 0, "b": 1}, sampled_token_ids=[[5], []])

        self.compute_logits(torch.full((9, 4), 9.0))
        return Later()


def test_each_step_s_logits_come_with_its_tokens_and_none_for_a_row_without_one(tmp_path: Path) -> None:
    from ramify.engines.vllm.core_process import PolicyWorker

    save_file(
        {"weight": torch.tensor([[1.0, 2.0, 0.0, 0.0]]), "bias": torch.tensor([0.5])},
        tmp_path / "head.safetensors",
    )
    worker = PolicyWorker()
    worker.model_runner = runner = GivenSteps()
    worker.load_value_head(str(tmp_path / "head.safetensors"))
    for first in (1.0, 2.0):
        states = torch.tensor([[first, 3.0, 7.0, 7.0], [0.0, 0.0, 7.0, 7.0]], dtype=torch.bfloat16)
        assert runner.compute_logits(states.float()).shape == (2, 2)
        assert runner.sample_tokens(None).get_output().pooler_output == [first + 6.5, None]
