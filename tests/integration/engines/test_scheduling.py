"""Results leave an engine in their time: draws whole, a last word of what was aborted, judgements in groups."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from fixtures_engines import LiveEngines
from ramify.engines import Engines, Tokenizer
from ramify.engines.ports import Watch
from ramify.search.records import Action, Hurdle
from ramify.weights import shipped

PROMPT = "3 5 7 8 to 24\n"
WORD, NEWLINE = Tokenizer(shipped() / "policy").encode_continuation("3\n")


class GivenSteps:
    """In vLLM's scheduler's place: its steps bring what they are told to."""

    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}
        self.ends: dict[str, str | None] = {}
        """How each request of the step ends in it, if vLLM ends it."""
        model = str(shipped() / "policy")
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(model=model))

    def add_request(self, request: Any) -> None:
        self.requests[request.request_id] = request

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def finish_requests(self, names: list[str], status: Any) -> list[Any]:
        return [self.requests.pop(name) for name in names if name in self.requests]

    def update_from_output(self, scheduled: Any, step: Any) -> dict[int, Any]:
        from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
        from vllm.v1.request import RequestStatus

        outputs = []
        for name in scheduled.num_scheduled_tokens:
            request, row, stopped, lists = self.requests.get(name), step.req_id_to_index[name], False, None
            if request is None:
                continue
            tokens = list(step.sampled_token_ids[row]) if step.sampled_token_ids else []
            pooled = step.pooler_output[row] if step.pooler_output else None
            if tokens:
                tokens, stopped = self._update_request_with_output(request, tokens)
            elif pooled is not None:
                request.status, stopped = RequestStatus.FINISHED_STOPPED, True
            if step.logprobs:
                lists = step.logprobs.slice_request(row, len(tokens))
            if tokens or pooled is not None or stopped:
                end = request.get_finished_reason() if stopped else None
                told = {"new_logprobs": lists, "pooling_output": pooled, "stop_reason": request.stop_reason}
                outputs.append(EngineCoreOutput(name, tokens, finish_reason=end, **told))
            if stopped:
                del self.requests[name]
        return {0: EngineCoreOutputs(outputs=outputs)} if outputs else {}

    def _update_request_with_output(self, request: Any, new_token_ids: list[int]) -> tuple[list[int], bool]:
        from vllm.v1.request import RequestStatus

        end = self.ends.get(request.request_id)
        if end is not None:
            request.status = RequestStatus[f"FINISHED_{end}"]
        return new_token_ids, end is not None


@pytest.fixture
def scheduler() -> Any:
    from ramify.engines.vllm.scheduler import SearchScheduler

    return type("SearchGivenSteps", (SearchScheduler, GivenSteps), {})()


def draw(
    name: str,
    kind: str = "FINAL_ONLY",
    *,
    detokenize: bool = False,
    asked_for: dict[str, Any] | None = None,
    top: int | None = 0,
) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    params = SamplingParams(
        output_kind=RequestOutputKind[kind], detokenize=detokenize, extra_args=asked_for, logprobs=top
    )
    return asked(name, params, None)


def judgement(name: str) -> Any:
    from vllm.pooling_params import PoolingParams

    return asked(name, None, PoolingParams(task="classify"))


def asked(name: str, sampling: Any, pooling: Any) -> Any:
    from vllm.v1.request import Request

    return Request(request_id=name, prompt_token_ids=[1], sampling_params=sampling, pooling_params=pooling)


class Row(NamedTuple):
    """A token whose log-probability is minus an eighth of it, and `width - 1` likelier ones."""

    name: str
    token: int
    end: str | None = None
    width: int = 1


def sent(scheduler: Any, *rows: Row, logits: dict[str, float] | None = None) -> list[Any]:
    """Return what leaves the engine after a step. logits: the value head's, by request."""
    from vllm.v1.outputs import LogprobsLists

    scheduler.ends = {row.name: row.end for row in rows}
    lists = LogprobsLists(
        np.array([[row.token + i for i in range(row.width)] for row in rows]),
        np.array([[-row.token / 8 - i for i in range(row.width)] for row in rows]),
        np.array([1 for _ in rows]),
    )
    return brought(
        scheduler,
        [row.name for row in rows],
        sampled_token_ids=[[row.token] for row in rows],
        logprobs=lists if rows else None,
        pooler_output=None if logits is None else [logits[row.name] for row in rows],
    )


def brought(scheduler: Any, names: list[str], **output: Any) -> list[Any]:
    """Return what leaves the engine after a step of these requests. output: vLLM's `ModelRunnerOutput`."""
    scheduled = SimpleNamespace(num_scheduled_tokens=dict.fromkeys(names, 1))
    step = SimpleNamespace(**output, req_id_to_index={name: i for i, name in enumerate(names)})
    by_client = scheduler.update_from_output(scheduled, step)
    return [output for outputs in by_client.values() for output in outputs.outputs]


def test_a_draw_leaves_once_with_the_tokens_of_all_its_steps(scheduler: Any) -> None:
    scheduler.add_request(draw("a"))
    scheduler.add_request(draw("b"))
    assert sent(scheduler, Row("a", 5), Row("b", 7)) == []
    (b,) = sent(scheduler, Row("a", 6), Row("b", 8, "STOPPED"))
    (a,) = sent(scheduler, Row("a", 9, "LENGTH_CAPPED"))
    assert (b.request_id, b.new_token_ids, b.finish_reason.name) == ("b", [7, 8], "STOP")
    assert (a.request_id, a.new_token_ids, a.finish_reason.name) == ("a", [5, 6, 9], "LENGTH")
    assert a.new_logprobs.logprobs.tolist() == [[-0.625], [-0.75], [-1.125]]
    assert a.new_logprobs.logprob_token_ids.tolist() == [[5], [6], [9]]
    assert a.new_logprobs.sampled_token_ranks.tolist() == [1, 1, 1]


@pytest.mark.parametrize("top", [0, 1])
def test_of_steps_beside_others_that_ask_for_more_a_draw_keeps_what_it_asked_for(
    scheduler: Any, top: int
) -> None:
    scheduler.add_request(draw("a", top=top))
    for token in range(99):
        assert sent(scheduler, Row("a", token, width=2 + token % 3)) == []
    (a,) = sent(scheduler, Row("a", 99, "STOPPED", width=2))
    assert a.new_token_ids == list(range(100))
    assert a.new_logprobs.logprob_token_ids.tolist() == [
        list(range(token, token + top + 1)) for token in range(100)
    ]


def test_a_streamed_request_beside_draws_keeps_its_log_probabilities(scheduler: Any) -> None:
    scheduler.add_request(draw("a"))
    scheduler.add_request(draw("streamed", "DELTA"))
    for end in (None, "STOPPED"):
        (streamed, *_) = sent(scheduler, Row("streamed", 4), Row("a", 5, end))
        assert streamed.new_logprobs.logprobs.tolist() == [[-0.5]]
    (alone,) = sent(scheduler, Row("streamed", 8))
    assert alone.new_logprobs.logprobs.tolist() == [[-1.0]]


def test_of_a_step_with_draws_alone_vllm_is_told_no_log_probabilities(
    scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    plain = GivenSteps.update_from_output

    def listening(self: Any, scheduled: Any, step: Any) -> dict[int, Any]:
        told.append(step.logprobs is not None)
        return plain(self, scheduled, step)

    monkeypatch.setattr(GivenSteps, "update_from_output", listening)
    for name in ("a", "b"):
        scheduler.add_request(draw(name))
    sent(scheduler, Row("a", 5, "STOPPED"), Row("b", 6))
    sent(scheduler, Row("a", 5), Row("b", 6))  # vLLM may have scheduled one that has just ended
    scheduler.add_request(draw("streamed", "DELTA"))
    sent(scheduler, Row("b", 6), Row("streamed", 7))
    assert told == [False, False, True]


def test_several_tokens_of_a_row_are_all_kept(scheduler: Any) -> None:
    from vllm.v1.outputs import LogprobsLists

    for name in ("a", "b"):
        scheduler.add_request(draw(name))
    lists = LogprobsLists(
        np.array([[5], [6], [7]]), np.array([[-0.5], [-0.25], [-1.0]]), np.array([1, 2, 3]), [0, 2]
    )
    scheduler.ends = {"a": "STOPPED", "b": "STOPPED"}
    a, b = brought(scheduler, ["a", "b"], sampled_token_ids=[[5, 6], [7]], logprobs=lists, pooler_output=None)
    assert (a.new_token_ids, a.new_logprobs.logprobs.tolist()) == ([5, 6], [[-0.5], [-0.25]])
    assert (b.new_token_ids, b.new_logprobs.sampled_token_ranks.tolist()) == ([7], [3])


@pytest.mark.parametrize(
    "params",
    [{"prompt_logprobs": 0}, {"structured_outputs": True}, {"logprobs": None}, {"logprobs": -1}],
    ids=str,
)
def test_a_request_that_vllm_wants_an_output_of_every_step_for_is_left_to_it(
    scheduler: Any, params: dict[str, Any]
) -> None:
    asked = draw("a")
    for name, value in params.items():
        setattr(asked.sampling_params, name, value)
    scheduler.add_request(asked)
    assert [output.new_token_ids for output in sent(scheduler, Row("a", 5))] == [[5]]


@pytest.mark.parametrize("one", [{"kind": "DELTA"}, {"detokenize": True}], ids=["streamed", "made text of"])
def test_what_is_read_token_by_token_leaves_so(scheduler: Any, one: dict[str, Any]) -> None:
    scheduler.add_request(draw("a", **one))
    assert [o.new_token_ids for o in sent(scheduler, Row("a", 5))] == [[5]]
    assert [o.new_token_ids for o in sent(scheduler, Row("a", 6, "STOPPED"))] == [[6]]


def test_an_aborted_draw_says_what_it_had(scheduler: Any) -> None:
    from vllm.v1.request import RequestStatus

    for name in ("a", "new"):
        scheduler.add_request(draw(name))
    scheduler.add_request(draw("streamed", "DELTA"))
    sent(scheduler, Row("a", 5))
    sent(scheduler, Row("a", 6))
    scheduler.finish_requests(["a", "new", "streamed", "unknown"], RequestStatus.FINISHED_ABORTED)
    words = {o.request_id: (o.new_token_ids, o.finish_reason.name) for o in sent(scheduler)}
    assert words == {"a": ([5, 6], "ABORT"), "new": ([], "ABORT"), "streamed": ([], "ABORT")}
    assert sent(scheduler) == []


def test_an_aborted_judgement_needs_no_last_word(scheduler: Any) -> None:
    from vllm.v1.request import RequestStatus

    scheduler.add_request(judgement("a"))
    scheduler.finish_requests(["a"], RequestStatus.FINISHED_ABORTED)
    assert sent(scheduler) == []


def test_the_logits_of_a_draw_leave_with_its_tokens(scheduler: Any) -> None:
    scheduler.add_request(draw("a"))
    scheduler.add_request(draw("streamed", "DELTA"))
    for token in range(40):
        (streamed,) = sent(
            scheduler, Row("a", token), Row("streamed", 4), logits={"streamed": 9.0, "a": token / 10}
        )
        assert (streamed.pooling_output, streamed.kv_transfer_params) == (None, None)
    (a,) = sent(scheduler, Row("a", 40, "STOPPED"), logits={"a": 4.0})
    assert a.pooling_output is None  # it would be taken for a judgement
    assert a.kv_transfer_params == {"ramify_logits": [token / 10 for token in range(41)]}


@pytest.mark.parametrize(("logit", "ends"), [(0.1, False), (-0.1, True)])
def test_a_draw_ends_in_the_step_in_which_it_does_not_clear_its_hurdle(
    scheduler: Any, logit: float, ends: bool
) -> None:
    from ramify.engines.vllm.watching import WATCH

    watch = Watch(Hurdle(0.1, 7), Action("step", ("\n",)), 0, (1.0, 0.0))  # 0.5 after two tokens
    scheduler.add_request(draw("a", asked_for={WATCH: msgspec.to_builtins(watch)}))
    assert sent(scheduler, Row("a", WORD), logits={"a": -9.0}) == []
    left = sent(scheduler, Row("a", NEWLINE), logits={"a": logit})
    assert [(o.new_token_ids, o.finish_reason.name, o.stop_reason) for o in left] == (
        [([WORD, NEWLINE], "STOP", "abandoned")] if ends else []
    )


def test_a_stop_string_ends_a_draw_at_the_token_that_completes_it(scheduler: Any) -> None:
    from ramify.engines.vllm.watching import STOP

    scheduler.add_request(draw("a", asked_for={STOP: ["\n\n"]}))
    for token in (NEWLINE, WORD, NEWLINE):
        assert sent(scheduler, Row("a", token)) == []
    (a,) = sent(scheduler, Row("a", NEWLINE))
    assert (a.new_token_ids, a.finish_reason.name) == ([NEWLINE, WORD, NEWLINE, NEWLINE], "STOP")


class Clock:
    """Time that passes only while somebody sleeps."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("size", [1, 4, 20])
def test_a_judgement_after_a_pause_goes_at_once_and_a_sooner_one_waits_longer_the_fuller_the_last_group_was(
    scheduler: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from vllm.v1.request import RequestStatus

    from ramify.engines.vllm.scheduler import FULL_GROUP, GROUP_SECONDS

    clock = Clock()
    monkeypatch.setattr("ramify.engines.vllm.scheduler.time", clock)

    def taken(name: str) -> float:
        began = clock.now
        scheduler.add_request(judgement(name))
        return clock.now - began

    assert taken("first") == 0
    scheduler.finish_requests(["first"], RequestStatus.FINISHED_STOPPED)
    names = [f"judged {i}" for i in range(size)]
    for name in names:
        scheduler.requests[name] = judgement(name)
    done = brought(
        scheduler, names, sampled_token_ids=[], logprobs=None, pooler_output=[torch.zeros(1)] * size
    )
    assert [(output.request_id, output.finish_reason.name) for output in done] == [
        (name, "STOP") for name in names
    ]
    assert taken("sooner") == pytest.approx(GROUP_SECONDS * min(1, size / FULL_GROUP))
    assert taken("with it") == 0


def test_judgements_asked_for_one_by_one_share_the_engines_steps(
    live_engines: LiveEngines, engines: Engines
) -> None:
    prompt = engines.tokenizer.encode(PROMPT)
    stats = engines.by_role["value"].stats

    async def go() -> int:
        before = stats.steps
        await asyncio.gather(*(engines.scorer.score([[*prompt, token]]) for token in range(4, 68)))
        return stats.steps - before

    assert live_engines.run(go()) <= 8
