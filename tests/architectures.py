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
    """What its configuration says beside, or in place of, `SHAPE`."""

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
