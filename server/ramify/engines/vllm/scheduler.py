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

    requests: dict[str, Any]
    """vLLM's own, by name: those that have not ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[str, HeldDraw] = {}
        """The draws that are wanted whole and have not ended."""
        self._watched: dict[str, DrawWatch] = {}
        """Those of them that end by a stop string or a hurdle."""
        self._step: Step
        """The step that is taken in."""
        self._given_up: dict[int, list[EngineCoreOutput]] = defaultdict(list)
        """Last outputs of the draws that were aborted since the last step, by client."""
        self._next_group = 0.0
        """Time on the monotonic clock from which the next judgements may be computed."""

    def add_request(self, request: Any) -> None:
        params = request.sampling_params
        if params is None:  # a judgement
            self._let_others_come()
        elif _is_draw(params):
            self._held[request.request_id] = HeldDraw(params.num_logprobs + 1)
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
        self._step = Step(model_runner_output)
        # vLLM would send each logit as if it were a judgement, and take out the log-probabilities of every draw.
        if model_runner_output.sampled_token_ids:
            model_runner_output.pooler_output = None
        names = scheduler_output.num_scheduled_tokens
        if all(name in self._held or name not in self.requests for name in names):
            model_runner_output.logprobs = None
        by_client: dict[int, EngineCoreOutputs] = super().update_from_output(  # type: ignore[misc]
            scheduler_output, model_runner_output
        )
        for outputs in by_client.values():
            # A step that judged something sets the time of the next group.
            if judged := sum(output.pooling_output is not None for output in outputs.outputs):
                share = min(1.0, judged / FULL_GROUP)
                self._next_group = time.monotonic() + share * GROUP_SECONDS
            # Of draws that are wanted whole, only those that have ended leave the engine.
            outputs.outputs = [self._whole(output) for output in outputs.outputs]
        # With them go the last words of the aborted ones, which no step brings.
        for client, given_up in self._given_up.items():
            by_client.setdefault(client, EngineCoreOutputs()).outputs += given_up
        self._given_up.clear()
        return by_client

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        tokens, stopped = super()._update_request_with_output(request, new_token_ids, *args, **kwargs)  # type: ignore[misc]
        held = self._held.get(request.request_id)
        if held is None:
            return tokens, stopped
        logit = held.add(self._step, self._step.rows[request.request_id], tokens)
        watch = self._watched.get(request.request_id)
        if watch is not None and request.status != RequestStatus.FINISHED_STOPPED:
            for token in tokens:
                end = watch.end(token, logit)
                if end == "stop" or (end == "abandoned" and not stopped):
                    request.status, stopped = RequestStatus.FINISHED_STOPPED, True
                    request.stop_reason = ABANDONED if end == "abandoned" else None
        # Without tokens vLLM makes no output. Only the last step's is wanted, which `_whole` fills.
        return (tokens if stopped else []), stopped

    def _whole(self, output: EngineCoreOutput) -> EngineCoreOutput:
        """Return the last output of a draw with all that was held of it, and any other output as it is."""
        held = self._held.pop(output.request_id, None)
        self._watched.pop(output.request_id, None)
        return output if held is None else held.in_full(output)


class HeldDraw:
    """A draw as the steps so far have brought it. Flat lists: the garbage collector does not look at numbers."""

    __slots__ = ("_ids", "_logits", "_logprobs", "_ranks", "_tokens", "_width")

    def __init__(self, width: int) -> None:
        """width: tokens of a row whose log-probabilities are wanted."""
        self._width = width
        self._tokens: list[int] = []
        self._ids: list[int] = []
        """`width` for each token: itself, then the likeliest ones of its step; `_logprobs` are theirs."""
        self._logprobs: list[float] = []
        self._ranks: list[int] = []
        self._logits: list[float] = []
        """The value head's."""

    def add(self, step: Step, row: int, tokens: Sequence[int]) -> float | None:
        """Take in what a step brought in a row, and return the value head's logit of it, if there is one."""
        self._tokens += tokens
        first = row if step.firsts is None else step.firsts[row]
        for place in range(first, first + len(tokens)):
            # A step's rows are as wide as the most that any request in it asked for, likeliest first.
            own = slice(place * step.width, place * step.width + self._width)
            self._ids += step.ids[own]
            self._logprobs += step.logprobs[own]
            self._ranks.append(step.ranks[place])
        if step.logits is None:
            return None
        logit = step.logits[row]
        self._logits.append(logit)
        return logit

    def in_full(self, end: EngineCoreOutput) -> EngineCoreOutput:
        """Return the last output with all tokens, log-probabilities and logits."""
        sent_along = end.kv_transfer_params
        if self._logits:
            sent_along = {**(sent_along or {}), LOGITS: self._logits}
        logprobs = LogprobsLists(
            np.array(self._ids, np.int32).reshape(-1, self._width),
            np.array(self._logprobs, np.float32).reshape(-1, self._width),
            np.array(self._ranks, np.int32),
        )
        return replace(end, new_token_ids=self._tokens, new_logprobs=logprobs, kv_transfer_params=sent_along)


class Step:
    """A step of the model, as it came out. Plain lists: elements of arrays are dear to take out one by one."""

    def __init__(self, output: Any) -> None:
        """output: vLLM's `ModelRunnerOutput`."""
        self.rows: dict[str, int] = output.req_id_to_index
        """By request."""
        self.logits: list[float] | None = output.pooler_output
        """The value head's, by row."""
        if lists := output.logprobs:
            self.width = lists.logprobs.shape[1]
            """Tokens of a row whose log-probabilities are told."""
            self.ids = lists.logprob_token_ids.ravel().tolist()
            self.logprobs = lists.logprobs.ravel().tolist()
            self.ranks = lists.sampled_token_ranks.tolist()
            self.firsts = lists.cu_num_generated_tokens
            """Places of the first tokens of rows, where one may have several."""


def _is_draw(params: Any) -> bool:
    """Return whether a request's tokens are wanted with their log-probabilities, whole, and without text. What vLLM
    wants an output of every step for, which such a request has none of, is left to it: a grammar, and log-probabilities
    of the prompt."""
    whole = params.output_kind == RequestOutputKind.FINAL_ONLY and not params.detokenize
    stepwise = params.structured_outputs is not None or params.prompt_logprobs is not None
    return whole and params.num_logprobs not in (None, -1) and not stepwise


def _bar(params: Any, barred: Sequence[int]) -> None:
    """Have a draw begin with none of these tokens: before `min_tokens`, vLLM's samplers leave out what would stop a
    request. (Here, since vLLM's client puts the model's end tokens among that.)"""
    params.min_tokens, params._all_stop_token_ids = 1, set(barred)
