"""Methods that Ramify adds to vLLM's workers of a policy, to be called by name in each of them."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from ramify.engines.vllm.value_head import ValueHead


class PolicyWorker:
    """Methods that vLLM adds to its workers' class (`worker_extension_cls`)."""

    model_runner: Any

    def load_value_head(self, path: str) -> None:
        """Judge from now on by the head in `path`, in place of the one before if there is one."""
        runner = self.model_runner
        head = getattr(runner, "ramify_value_head", None)
        if head is None:
            head = runner.ramify_value_head = ValueHead(runner)
        tensors = load_file(path, device=str(runner.device))
        head.weight, head.bias = tensors["weight"][0], tensors["bias"]

    def renew_tied_output(self) -> None:
        """Have an output layer whose weight is the embedding's too take that weight anew.

        A reload takes such a layer for one without weights of its own and leaves it as it was. On a CPU it computes
        from a packed copy of the weight, which is then that of the weights before (vLLM 0.32)."""
        layers = [layer for layer in self.model_runner.get_model().modules() if hasattr(layer, "weight")]
        for output in layers:
            others = (layer.weight for layer in layers if layer is not output)
            if isinstance(output, ParallelLMHead) and any(weight is output.weight for weight in others):
                output.quant_method.process_weights_after_loading(output)
