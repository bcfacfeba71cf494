"""The engines' scheduler: vLLM's own, changed for searches, which want whole draws and many small judgements.

*Draws leave the engine whole*: once, with all their tokens, when they end. vLLM sends what every step brought, three
arrays for each token of each draw, for readers who stream; taking those apart was the largest single cost of the
server's process. Requests whose text vLLM makes are left as they are: it looks for stop strings outside the engine,
token by token, and a long text is better made as it comes.

*Aborted draws get a last output* with the tokens that they had, so that whoever paid for them can count them. vLLM by
itself would say nothing more of them. (It does if it aborts of its own accord, at a pause in mode "abort" or at its
shutdown, and then without the tokens held here; neither is used.)

*Judgements are computed in groups.* A step costs milliseconds whatever is in it. Judgements come one by one as draws
end; computed as they came they took the value engine 3,064 steps, and 78 for the same work given at once.
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

FOLD = 32
"""Steps of a draw that are kept apart: each keeps the arrays of its whole batch in memory."""
GROUP_SECONDS = 0.03
"""Between the end of a full group of judgements and the next: about what one step of a busy policy takes."""
FULL_GROUP = 4
"""Judgements of a group after which the next waits its whole time. After a smaller one it waits less in proportion: if
few come, waiting for more of them only keeps their search waiting."""


@cache
def search_scheduler(scheduler: type[Any]) -> type[Any]:
    """Return a subclass of `scheduler`, one of vLLM's, with `SearchScheduler` mixed in; the same one each time."""
    return type(f"Search{scheduler.__name__}", (SearchScheduler, scheduler), {})


class SearchScheduler:
    """The difference from vLLM's schedulers, as a mix-in for any of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[str, list[EngineCoreOutput]] = {}
        """Outputs of the steps so far, for each draw that is wanted whole and has not ended."""
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

    def update_from_output(self, *args: Any) -> dict[int, EngineCoreOutputs]:
        by_client: dict[int, EngineCoreOutputs] = super().update_from_output(*args)  # type: ignore[misc]
        for outputs in by_client.values():
            # A step that judged something sets the time of the next group.
            if judged := sum(output.pooling_output is not None for output in outputs.outputs):
                share = min(1.0, judged / FULL_GROUP)
                self._next_group = time.monotonic() + share * GROUP_SECONDS
            # Of draws that are wanted whole, only those that have ended leave the engine.
            outputs.outputs = [whole for output in outputs.outputs if (whole := self._held_back(output))]
        # With them go the last words of the aborted ones, which no step brings.
        for client, given_up in self._given_up.items():
            by_client.setdefault(client, EngineCoreOutputs()).outputs += given_up
        self._given_up.clear()
        return by_client

    def _held_back(self, output: EngineCoreOutput) -> EngineCoreOutput | None:
        """Return what of a step's output is sent now; None if all of it is held back."""
        if output.finished:
            return self._whole(output)
        held = self._held.get(output.request_id)
        if held is None:
            return output
        held.append(output)
        if len(held) == FOLD:
            held[:] = [joined(held)]
        return None

    def _whole(self, end: EngineCoreOutput) -> EngineCoreOutput:
        """Return the last output of a request, joined with what was held back of it."""
        held = self._held.pop(end.request_id, None)
        return joined([*held, end]) if held else end


def joined(parts: Sequence[EngineCoreOutput]) -> EngineCoreOutput:
    """Join consecutive outputs of one request: its tokens and log-probabilities in order, what is said once from the
    first, its end from the last."""
    first, end = parts[0], parts[-1]
    lists = [part.new_logprobs for part in parts if part.new_logprobs is not None]
    return replace(
        end,
        new_token_ids=list(chain.from_iterable(part.new_token_ids for part in parts)),
        new_logprobs=_joined_logprobs(lists) if lists else None,
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
