"""Policy and value model, or policy and value head, as the directories of a release, and back."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from ramify_trainer.learning.value_head import write_head
from research.bootstrap.tiny_llama import Shape, TinyLlama
from research.bootstrap.tokenizer import BOS, EOS, PAD, build_tokenizer

__all__ = ["load_model", "save_policy", "save_trunk", "save_value"]


def save_policy(model: TinyLlama, directory: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> None:
    """Write the policy as a ``LlamaForCausalLM`` in bfloat16, with tokenizer (the demo's, if none is given) and
    generation settings."""
    _save(model, directory, "LlamaForCausalLM", "lm_head", tokenizer)
    generation = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, do_sample=True)
    generation.save_pretrained(directory)


def save_value(model: TinyLlama, directory: Path) -> None:
    """Write the value model as a one-label ``LlamaForSequenceClassification`` in bfloat16, with the tokenizer.

    Of a network with more outputs the first is kept.
    """
    _save(model, directory, "LlamaForSequenceClassification", "score", None)


def save_trunk(model: TinyLlama, directory: Path) -> None:
    """Write ``policy`` and ``value`` of a release: a policy in bfloat16, and the head on its trunk in float32.

    The network's outputs are those of the policy, then the value's logit; what follows is left out.
    """
    vocabulary, hidden = model.shape.vocab, model.shape.hidden
    policy = TinyLlama(model.shape, vocabulary)
    policy.load_state_dict({**model.state_dict(), "head": model.head[:vocabulary]})
    save_policy(policy, directory / "policy")
    head = {"weight": model.head[vocabulary].reshape(1, hidden), "bias": torch.zeros(1)}
    write_head(directory / "value", head)


def _save(
    model: TinyLlama, directory: Path, architecture: str, head: str, tokenizer: PreTrainedTokenizerFast | None
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: t.to(torch.bfloat16) for name, t in model.state_dict_for_transformers(head).items()}
    if head == "score":
        weights["score.weight"] = weights["score.weight"][:1].clone()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    shape = model.shape
    config = LlamaConfig(
        architectures=[architecture],
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.positions,
        rms_norm_eps=shape.eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        dtype="bfloat16",
    )
    if head == "score":
        config.id2label, config.label2id = {0: "value"}, {"value": 0}
    config.save_pretrained(directory)
    (tokenizer or build_tokenizer()).save_pretrained(directory)


def load_model(directory: Path, head: str) -> TinyLlama:
    """Return the network in a directory that :func:`save_policy` or :func:`save_value` wrote, in float32."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    weights = load_file(directory / "model.safetensors")
    shape = Shape(
        vocab=config["vocab_size"],
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        rope_theta=config["rope_parameters"]["rope_theta"],
        eps=config["rms_norm_eps"],
    )
    model = TinyLlama(shape, len(weights[f"{head}.weight"]))
    model.load_from_transformers(weights, head)
    return model.eval()
