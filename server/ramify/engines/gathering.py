"""The value engine's scheduler: judgements that are sent together are computed together.

vLLM begins a step with the first request that reaches an idle engine, and what was sent in the same moment waits for
the next step. A step costs the demo's value engine 3 ms whatever is in it, so that a group of judgements cost two or
three. Here an engine that was idle looks once more, a millisecond later, for as long as more requests come in. One that
is at work is left alone: what comes meanwhile goes into its next step anyway.

This runs in the engine's process. 2026-11-24: gathering on our side of the socket was not enough: requests are sent one
by one, and the engine is faster than that.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

IDLE = 0.001
"""Seconds without a step after which an engine was idle."""
ENOUGH = 32
"""Requests that are not kept waiting for more."""


class GatheringScheduler(Scheduler):  # type: ignore[misc]
    """vLLM's scheduler, which in an idle engine waits for what comes along with the first request."""

    _worked = 0.0
    """`time.monotonic()` at the end of the last step."""
    _seen = 0
    """Requests that waited when it last looked; 0 where it then computed them."""

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        if self._more_may_come():
            return SchedulerOutput.make_empty()  # the engine core pauses for 1 ms and reads its queue again
        return super().schedule(throttle_prefills)

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: Any) -> Any:
        if self._seen:
            return {}  # it has only looked: nothing was computed, and nobody need be told
        if scheduler_output.total_num_scheduled_tokens:
            self._worked = time.monotonic()
        return super().update_from_output(scheduler_output, model_runner_output)

    def _more_may_come(self) -> bool:
        waiting, before = len(self.waiting), self._seen
        idle = not self.running and time.monotonic() - self._worked > IDLE
        self._seen = waiting if idle and before < waiting < ENOUGH else 0
        return bool(self._seen)
