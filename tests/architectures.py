"""Tiny random models of many architectures, as directories: what the trainer must write back as it found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY = 128
SHAPE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Architecture:
    """A model type of transformers, small."""

    model_type: str
    own: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its configuration beside, or in place of, `SHAPE`."""

    def write(self, folder: Path, *, dtype: str = "bfloat16", value: bool = False, seed: int = 0) -> Path:
        """Write the policy, or with `value` the one-label classifier."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

        shape = {**SHAPE, **({"num_labels": 1} if value else {}), **self.own}
        config = AutoConfig.for_model(self.model_type, **shape)
        torch.manual_seed(seed)
        kind = AutoModelForSequenceClassification if value else AutoModelForCausalLM
        model = kind.from_config(config).to(getattr(torch, dtype))
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:  # wider than at a usual initialisation, so that differences show
                    weight.normal_(0, 0.3)
        model.save_pretrained(folder)
        return folder


TIED = {"tie_word_embeddings": True}
UNTIED = {"tie_word_embeddings": False}
PLAIN = {
    "llama": Architecture("llama", UNTIED),
    "llama tied": Architecture("llama", TIED),
    "qwen2 tied": Architecture("qwen2", TIED),
    "qwen3 tied": Architecture("qwen3", TIED),
    "gemma tied": Architecture("gemma", TIED),
    "phi3": Architecture("phi3", UNTIED),
    "gpt2 tied": Architecture("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 32}),
    "gpt_neox": Architecture("gpt_neox", UNTIED),
    "mixtral": Architecture("mixtral", {**EXPERTS, **UNTIED, "sliding_window": None}),
    "qwen3_moe": Architecture(
        "qwen3_moe", {**EXPERTS, **UNTIED, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    ),
}
"""Attention over everything before: a tree can be packed."""

WINDOW = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 0}
OTHER = {
    "mistral": Architecture("mistral", {**UNTIED, "sliding_window": 8}),
    "qwen2 with a window": Architecture("qwen2", {**TIED, **WINDOW}),
    "gemma2": Architecture("gemma2", {"sliding_window": 8}),
    "gemma3": Architecture("gemma3_text", {"sliding_window": 8}),
    "cohere2": Architecture("cohere2", {"sliding_window": 8}),
    "llama4": Architecture(
        "llama4_text",
        {
            **EXPERTS,
            **UNTIED,
            "attention_chunk_size": 8,
            "intermediate_size_mlp": 32,
            "interleave_moe_layer_step": 2,
        },
    ),
    "qwen3_next": Architecture(
        "qwen3_next",
        {
            **EXPERTS,
            **UNTIED,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "jamba": Architecture(
        "jamba",
        {**EXPERTS, **UNTIED, "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "mamba": Architecture("mamba", {**UNTIED, "state_size": 4, "time_step_rank": 4}),
}
"""Windows, chunks, recurrences: a packed tree would be read wrongly."""
