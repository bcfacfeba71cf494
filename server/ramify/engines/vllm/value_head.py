"""The value head in the engine: one logit for each row that samples a token, read at the state that it samples from.

vLLM's model runners, that for CPUs and both for GPUs, hand the hidden states of a step's sampling rows to the model's
`compute_logits`: after the final norm, in the order of the step's requests. There the head reads them: one product
with a vector, outside the compiled model and its CUDA graphs. Under tensor parallelism every rank has the whole hidden
states and computes the same figures; those of rank 0 travel, as its tokens do.

The logits leave as the `pooler_output` of the step's output, which a policy's engine has no other use for; `scheduler`
takes them from there and keeps them beside each request's tokens. A row without a token, of a prompt that is taken in
parts, has none.

2026-11-28: the runner's `execute_model_state.sample_hidden_states` was not used, since vLLM's second model runner,
its default on GPUs, has no such field.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.outputs import AsyncModelRunnerOutput


class ValueHead:
    """A linear head on a model runner's model, in float32."""

    weight: torch.Tensor
    """(hidden size,)"""
    bias: torch.Tensor
    """(1,)"""

    def __init__(self, runner: Any) -> None:
        """Put this between the runner and what it computes and returns."""
        model = runner.get_model()
        self._compute_logits, self._sample_tokens = model.compute_logits, runner.sample_tokens
        self._rows: torch.Tensor | None = None
        """Logits of the step under way."""
        model.compute_logits, runner.sample_tokens = self.compute_logits, self.sample_tokens

    def compute_logits(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Judge the rows that the model computes next tokens for. hidden_states: (rows, hidden size)."""
        if self._rows is None:  # the first call of a step; others are for log-probabilities of a prompt
            rows = torch.addmv(self.bias, hidden_states.float(), self.weight)
            # The copy is made before the step's tokens are sampled, so it has ended once they can be read.
            self._rows = rows.to("cpu", non_blocking=True)
        return self._compute_logits(hidden_states, *args, **kwargs)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample as the runner does, and send the logits along."""
        output = self._sample_tokens(grammar_output)
        rows, self._rows = self._rows, None
        if rows is None:
            return output
        if isinstance(output, AsyncModelRunnerOutput):
            return JudgedLater(output, rows)
        return judged(output, rows)


class JudgedLater(AsyncModelRunnerOutput):  # type: ignore[misc]
    """A step's output whose tokens are still on their way from the device."""

    def __init__(self, output: AsyncModelRunnerOutput, rows: torch.Tensor) -> None:
        self._output, self._rows = output, rows

    def get_output(self) -> Any:
        return judged(self._output.get_output(), self._rows)


def judged(output: Any, rows: torch.Tensor) -> Any:
    """Return a step's output with the logits of its rows; `None` for a request that sampled no token."""
    logits = zip(rows.tolist(), output.sampled_token_ids, strict=True)
    output.pooler_output = [logit if tokens else None for logit, tokens in logits]
    return output
