"""The engines' scheduler: vLLM's own, changed for searches, which want whole draws and many small judgements.

*Draws leave the engine whole*: once, with all their tokens, when they end. vLLM sends what every step brought, three
arrays for each token of each draw, for readers who stream; taking those apart was the largest single cost of the
server's process. Requests whose text vLLM makes are left as they are: it looks for stop strings outside the engine,
token by token, and a long text is better made as it comes. The stop strings of draws that leave whole are looked for
here (`watching`).

*Draws are judged while they grow*, if the engine has a value head (`value_head`): the logit of each row is kept beside
its token, and leaves with the draw. A draw with a hurdle ends in the very step in which it does not clear it.

*Aborted draws get a last output* with the tokens that they had, so that whoever paid for them can count them. vLLM by
itself would say nothing more of them. (It does if it aborts of its own accord, at a pause in mode "abort" or at its
shutdown, and then without the tokens held here; neither is used.)

*Judgements are computed in groups.* A step costs milliseconds whatever is in it. Judgements come one by one as draws
end; computed as they came they took the value engine 3,064 steps, and 78 for the same work given at once.

*Draws begin with none of the tokens that their search bars*, since it knows where they lead.

*Requests begin where an earlier one was*, also within a block of the KV cache (`prefixes`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from msgspec.structs import replace
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.outputs import LogprobsLists
from vllm.v1.request import RequestStatus

from ramify.engines.vllm.prefixes import PrefixScheduler
from ramify.engines.vllm.watching import ABANDONED, STOP, WATCH, DrawWatch, tokenizer_of

BARRED = "ramify_barred"
"""Key of the tokens that a draw must not begin with, in vLLM's `extra_args`."""
LOGITS = "ramify_logits"
"""Key of a draw's logits in vLLM's `kv_transfer_params`: a field that reaches the client as it is."""
FOLD = 32
"""Steps of a draw that are kept apart: each keeps the arrays of its whole batch in memory."""
GROUP_SECONDS = 0.03
"""Between the end of a full group of judgements and the next: about what one step of a busy policy takes."""
FULL_GROUP = 4
"""Judgements of a group after which the next waits its whole time. After a smaller one it waits less in proportion: if
few come, waiting for more of them only keeps their search waiting."""


@cache
def search_scheduler(scheduler: type[Any]) -> type[Any]:
    """Return a subclass of `scheduler`, one of vLLM's, with what searches want mixed in; the same one each time."""
    return type(f"Search{scheduler.__name__}", (SearchScheduler, PrefixScheduler, scheduler), {})


class SearchScheduler:
    """The difference from vLLM's schedulers, as a mix-in for any of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[str, list[EngineCoreOutput]] = {}
        """Outputs of the steps so far, for each draw that is wanted whole and has not ended."""
        self._watched: dict[str, DrawWatch] = {}
        """Those of them that end by a stop string or a hurdle."""
        self._step: Any = None
        """vLLM's `ModelRunnerOutput` of the step that is taken in."""
        self._given_up: dict[int, list[EngineCoreOutput]] = defaultdict(list)
        """Last outputs of the draws that were aborted since the last step, by client."""
        self._next_group = 0.0
        """Time on the monotonic clock from which the next judgements may be computed."""

    def add_request(self, request: Any) -> None:
        params = request.sampling_params
        if params is None:  # a judgement
            self._let_others_come()
        elif params.output_kind == RequestOutputKind.FINAL_ONLY and not params.detokenize:
            self._held[request.request_id] = []
            asked = params.extra_args or {}
            if barred := asked.get(BARRED):
                _bar(params, barred)
            if STOP in asked or WATCH in asked:
                tokenizer = tokenizer_of(self.vllm_config.model_config.model)  # type: ignore[attr-defined]
                self._watched[request.request_id] = DrawWatch(asked, request.prompt_token_ids, tokenizer)
        super().add_request(request)  # type: ignore[misc]

    def _let_others_come(self) -> None:
        """Have the first judgement of an idle engine wait for the time of the next group; what arrives meanwhile is
        taken up with it. After a pause it waits for nobody."""
        if not self.has_unfinished_requests():  # type: ignore[attr-defined]
            time.sleep(max(0.0, self._next_group - time.monotonic()))

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Any]:
        ended: list[Any] = super().finish_requests(request_ids, finished_status)  # type: ignore[misc]
        if finished_status == RequestStatus.FINISHED_ABORTED:
            for request in ended:
                if request.sampling_params is not None:
                    end = EngineCoreOutput(request.request_id, [], finish_reason=FinishReason.ABORT)
                    self._given_up[request.client_index].append(self._whole(end))
        return ended

    def update_from_output(
        self, scheduler_output: Any, model_runner_output: Any
    ) -> dict[int, EngineCoreOutputs]:
        self._step = model_runner_output
        by_client: dict[int, EngineCoreOutputs] = super().update_from_output(  # type: ignore[misc]
            scheduler_output, model_runner_output
        )
        for outputs in by_client.values():
            # A step that judged something sets the time of the next group.
            if judged := sum(_is_judgement(output) for output in outputs.outputs):
                share = min(1.0, judged / FULL_GROUP)
                self._next_group = time.monotonic() + share * GROUP_SECONDS
            # Of draws that are wanted whole, only those that have ended leave the engine.
            outputs.outputs = [whole for output in outputs.outputs if (whole := self._held_back(output))]
        # With them go the last words of the aborted ones, which no step brings.
        for client, given_up in self._given_up.items():
            by_client.setdefault(client, EngineCoreOutputs()).outputs += given_up
        self._given_up.clear()
        return by_client

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        tokens, stopped = super()._update_request_with_output(request, new_token_ids, *args, **kwargs)  # type: ignore[misc]
        watch = self._watched.get(request.request_id)
        if watch is None or request.status == RequestStatus.FINISHED_STOPPED:
            return tokens, stopped
        for token in tokens:
            end = watch.end(token, self._logit(request.request_id))
            if end == "stop" or (end == "abandoned" and not stopped):
                request.status, stopped = RequestStatus.FINISHED_STOPPED, True
                request.stop_reason = ABANDONED if end == "abandoned" else None
        return tokens, stopped

    def _logit(self, name: str) -> float | None:
        """Return the value head's logit of a request's row in this step."""
        if self._step.pooler_output is None:
            return None
        (logit,) = self._step.pooler_output[self._step.req_id_to_index[name]]
        return float(logit)

    def _held_back(self, output: EngineCoreOutput) -> EngineCoreOutput | None:
        """Return what of a step's output is sent now; None if all of it is held back."""
        if output.finished:
            return self._whole(output)
        held = self._held.get(output.request_id)
        if held is None:
            return _without_logits(output)
        held.append(output)
        if len(held) == FOLD:
            held[:] = [joined(held)]
        return None

    def _whole(self, end: EngineCoreOutput) -> EngineCoreOutput:
        """Return the last output of a request, joined with what was held back of it."""
        held = self._held.pop(end.request_id, None)
        self._watched.pop(end.request_id, None)
        if held is None:
            return _without_logits(end)
        whole = joined([*held, end]) if held else end
        logits = whole.pooling_output
        if logits is not None:  # vLLM's client takes whatever has a pooling_output for a judgement
            whole.pooling_output, whole.kv_transfer_params = None, {LOGITS: logits}
        return whole


def _bar(params: Any, barred: Sequence[int]) -> None:
    """Have a draw begin with none of these tokens: before `min_tokens`, vLLM's samplers leave out what would stop a
    request. (Here, since vLLM's client puts the model's end tokens among that.)"""
    params.min_tokens, params._all_stop_token_ids = 1, set(barred)


def _is_judgement(output: EngineCoreOutput) -> bool:
    return output.pooling_output is not None and not output.new_token_ids


def _without_logits(output: EngineCoreOutput) -> EngineCoreOutput:
    """Return an output as vLLM knows it: a row that sampled a token has no `pooling_output`."""
    if output.new_token_ids:
        output.pooling_output = None
    return output


def joined(parts: Sequence[EngineCoreOutput]) -> EngineCoreOutput:
    """Join consecutive outputs of one request: tokens, log-probabilities and logits in order, what is said once from
    the first, the end from the last."""
    first, end = parts[0], parts[-1]
    lists = [part.new_logprobs for part in parts if part.new_logprobs is not None]
    logits: Any = list(chain.from_iterable(part.pooling_output or () for part in parts))
    return replace(
        end,
        new_token_ids=list(chain.from_iterable(part.new_token_ids for part in parts)),
        new_logprobs=_joined_logprobs(lists) if lists else None,
        pooling_output=logits or None,
        new_prompt_logprobs_tensors=first.new_prompt_logprobs_tensors,
        prompt_token_id_logprobs=first.prompt_token_id_logprobs,
        events=list(chain.from_iterable(part.events or () for part in parts)) or None,
        prefill_stats=first.prefill_stats,
    )


def _joined_logprobs(lists: Sequence[LogprobsLists]) -> LogprobsLists:
    # A step's lists are as wide as the most that any request in it asked for, likeliest first: every one's own is
    # within the narrowest.
    width = min(one.logprobs.shape[1] for one in lists)
    return LogprobsLists(
        np.concatenate([one.logprob_token_ids[:, :width] for one in lists]),
        np.concatenate([one.logprobs[:, :width] for one in lists]),
        np.concatenate([one.sampled_token_ranks for one in lists]),
    )
