"""Tiny random models for tests that need other models than the shipped one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.weights import shipped

TWO_MODELS = shipped().with_name("v000001")
"""The demo release that has a value model of its own, where the shipped one has a head on its policy's trunk."""

NUMBERS = tuple(str(n) for n in range(200))
OPERATORS = ("+", "-", "*", "/", "=", "to")
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (*SPECIAL, "\n", *tuple(space + word for space in ("", " ") for word in (*OPERATORS, *NUMBERS)))
"""Every word with and without its leading space, so that decoding is plain concatenation."""


@dataclass(frozen=True)
class TinyModels:
    """Directories of a random policy and a random value model that share one tokenizer."""

    policy: Path
    value: Path


def write_tiny_models(
    folder: Path, *, hidden: int = 192, layers: int = 4, heads: int = 6, labels: int = 1, seed: int = 0
) -> TinyModels:
    """Write a random Llama policy and a one-label Llama classifier under `folder`, in safetensors.

    hidden / heads must be a head size that vLLM's CPU attention knows: 32, 64, 80, 96, 112, 128, ... The weights
    are drawn wider than at a usual initialisation, so that different prompts give visibly different outputs.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        initializer_range=0.1,
        pad_token_id=WORDS.index("<pad>"),
        bos_token_id=WORDS.index("<bos>"),
        eos_token_id=WORDS.index("<eos>"),
        tie_word_embeddings=True,
    )
    models = TinyModels(folder / "policy", folder / "value")
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(models.policy)
    shape.num_labels = labels
    LlamaForSequenceClassification(shape).to(torch.bfloat16).save_pretrained(models.value)
    for path in (models.policy, models.value):
        write_tokenizer(path)
    return models


def write_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> None:
    """A word-level tokenizer whose words carry their own leading space; it puts <bos> before every prompt."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n| ?[^ \n]+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", words.index("<bos>"))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    fast.save_pretrained(folder)


CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_chat_policy(folder: Path, *, seed: int = 0) -> Path:
    """Write a random Llama policy over single bytes with tied embeddings and a chat template, in safetensors.

    Any text can be written in its tokens, so a grammar can make it write JSON.
    """
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ("<pad>", "<|im_start|>", "<|im_end|>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(letters) + len(special),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.1,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    return folder
