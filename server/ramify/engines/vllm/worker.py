"""Methods that Ramify adds to vLLM's workers of a policy, to be called by name in each of them."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file

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
        """Have an output layer whose weight is the embedding's take that weight anew.

        A reload takes such a layer for one without weights of its own and leaves it as it was. On a CPU it computes
        from a packed copy of the weight, which is then that of the weights before (vLLM 0.32)."""
        model = self.model_runner.get_model()
        output: Any = getattr(model, "lm_head", None)
        weight = getattr(output, "weight", None)
        others = (module for module in model.modules() if module is not output)
        if weight is not None and any(getattr(module, "weight", None) is weight for module in others):
            output.quant_method.process_weights_after_loading(output)
