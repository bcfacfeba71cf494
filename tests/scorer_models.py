"""Tiny random models of every kind that judges, each of the architecture of the published ones and with a tokenizer of
its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

CHAT = (
    "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)
SPECIAL = ("<pad>", "<|end|>", "<|turn|>")


def write_bytes_tokenizer(
    folder: Path, *, added: Sequence[str] = (), words: Sequence[str] = (), chat: bool = True
) -> Any:
    """Write a tokenizer of single bytes, special tokens first, so that its ids are not the policy's.

    added: further special tokens. words: texts that are one token each."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: i + 3 for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *added])
    tokenizer.add_tokens(list(words))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT if chat else None
    fast.save_pretrained(folder)
    return fast


def shape(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer) + 8,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


def write_classifier(folder: Path, labels: int = 3) -> Path:
    """Write a chat reward model of several labels, the second of which is `helpful`."""
    tokenizer = write_bytes_tokenizer(folder)
    names = {i: "helpful" if i == 1 else f"other {i}" for i in range(labels)}
    config = LlamaConfig(**shape(tokenizer, id2label=names, label2id={v: k for k, v in names.items()}))
    torch.manual_seed(1)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


class ProcessRewardModel(nn.Module):
    """`Qwen2ForProcessRewardModel`, as its own modelling code has it: transformers does not."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.model = Qwen2Model(config)
        width = config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.score(self.model(ids).last_hidden_state)
        return logits


def write_process_reward_model(folder: Path) -> ProcessRewardModel:
    """Write a model of the kind of Qwen2.5-Math-PRM, as its folder of a hub holds it, `auto_map` included."""
    tokenizer = write_bytes_tokenizer(folder, added=("<extra_0>",))
    config = Qwen2Config(**shape(tokenizer))
    torch.manual_seed(2)
    model = ProcessRewardModel(config).eval()
    with torch.no_grad():
        for layer in (model.score[0], model.score[2]):
            layer.weight.normal_(0, 0.3)
    save_file(dict(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    own = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    written = {**config.to_dict(), "architectures": ["Qwen2ForProcessRewardModel"], "auto_map": own}
    (folder / "config.json").write_text(json.dumps({**written, "dtype": "float32"}))
    return model


def write_math_shepherd(folder: Path) -> Path:
    """Write a causal model that writes `+` or `-` at ` ки` after each step."""
    tokenizer = write_bytes_tokenizer(folder, words=(" ки",), chat=False)
    torch.manual_seed(3)
    MistralForCausalLM(MistralConfig(**shape(tokenizer, sliding_window=None))).save_pretrained(folder)
    return folder


def write_token_classifier(folder: Path) -> Path:
    """Write a model as TRL's PRMTrainer leaves it: two labels for each token."""
    tokenizer = write_bytes_tokenizer(folder, chat=False)
    torch.manual_seed(4)
    model = Qwen2ForTokenClassification(Qwen2Config(**shape(tokenizer, num_labels=2)))
    with torch.no_grad():
        model.score.weight.normal_(0, 0.3)
        model.score.bias.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def write_judge(folder: Path) -> Path:
    """Write a chat model with tied embeddings to which `Yes` and `No` are one token each."""
    tokenizer = write_bytes_tokenizer(folder, words=("Yes", "No"))
    torch.manual_seed(5)
    Qwen2ForCausalLM(Qwen2Config(**shape(tokenizer, tie_word_embeddings=True))).save_pretrained(folder)
    return folder
