"""A Llama in plain torch: the weights of the Hugging Face model, several times faster on a CPU for short texts.

The speed comes from fused projections and from *groups*: K answers to one prompt are run with the prompt's keys and
values computed once. The same forward pass trains (whole answers), samples (one token at a time on a
preallocated cache) and scores. :meth:`TinyLlama.state_dict_for_transformers` gives the weights under Hugging
Face's names; a test compares the two implementations.

Shapes: P prompts, K answers to each, T tokens, H heads, D head size, C hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Cache", "Shape", "TinyLlama"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network."""

    vocab: int
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    intermediate: int = 512
    positions: int = 64
    rope_theta: float = 10_000.0
    eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """The size of one attention head."""
        return self.hidden // self.heads


KeysValues = tuple[Tensor, Tensor]


class Cache:
    """Keys and values of the answers being written: per layer two tensors [P, K, H, T_max, D], filled from the left."""

    def __init__(self, shape: Shape, prompts: int, answers: int, length: int) -> None:
        size = (prompts, answers, shape.heads, length, shape.head_dim)
        self.layers = [(torch.zeros(size), torch.zeros(size)) for _ in range(shape.layers)]
        self.length = 0


class Layer(nn.Module):
    """One pre-norm Llama block with fused query-key-value and gate-up projections."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.norm_attention = nn.Parameter(torch.ones(shape.hidden))
        self.qkv = nn.Parameter(torch.empty(3 * shape.hidden, shape.hidden))
        self.out = nn.Parameter(torch.empty(shape.hidden, shape.hidden))
        self.norm_mlp = nn.Parameter(torch.ones(shape.hidden))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.intermediate, shape.hidden))
        self.down = nn.Parameter(torch.empty(shape.hidden, shape.intermediate))

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries, rotated keys and values [..., H, T, D] of x [..., T, C]; cos, sin [T, 1, 2, D/2]."""
        s = self.shape
        y = F.linear(F.rms_norm(x, (s.hidden,), self.norm_attention, s.eps), self.qkv)
        y = y.view(*x.shape[:-1], 3 * s.heads, s.head_dim)
        qk, v = torch.split(y, [2 * s.heads, s.heads], dim=-2)
        q, k = torch.split(_rotate(qk, cos, sin), s.heads, dim=-2)
        return q.transpose(-2, -3), k.transpose(-2, -3), v.transpose(-2, -3)

    def project_some(
        self, x: Tensor, cos: Tensor, sin: Tensor, asked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what :meth:`project` does, but the queries of the positions ``asked`` only."""
        s = self.shape
        normed = F.rms_norm(x, (s.hidden,), self.norm_attention, s.eps)
        q = F.linear(normed[..., asked, :], self.qkv[: s.hidden])
        q = q.view(*q.shape[:-1], s.heads, s.head_dim)
        kv = F.linear(normed, self.qkv[s.hidden :]).view(*x.shape[:-1], 2 * s.heads, s.head_dim)
        k, v = torch.split(kv, s.heads, dim=-2)
        q, k = _rotate(q, cos[asked], sin[asked]), _rotate(k, cos, sin)
        return q.transpose(-2, -3), k.transpose(-2, -3), v.transpose(-2, -3)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output from its input [..., T, C] and the heads' mixtures [..., H, T, D]."""
        x = x + F.linear(attended.transpose(-2, -3).flatten(-2), self.out)
        y = F.rms_norm(x, (self.shape.hidden,), self.norm_mlp, self.shape.eps)
        gate, up = F.linear(y, self.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


class TinyLlama(nn.Module):
    """The trunk and one head: ``head`` [V, C] for a policy, [1, C] for a value model."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        self.head = nn.Parameter(torch.empty(outputs, shape.hidden))
        frequencies = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.outer(torch.arange(shape.positions), frequencies)[:, None, None, :]
        self.register_buffer("cos", angles.cos().expand(-1, 1, 2, -1).contiguous(), persistent=False)
        signed = torch.cat([-angles.sin(), angles.sin()], dim=2)
        self.register_buffer("sin", signed.contiguous(), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every matrix from N(0, 0.02²), those that write into the residual stream scaled down by depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("out", "down"))
                std = 0.02 / math.sqrt(2 * self.shape.layers) if residual else 0.02
                nn.init.normal_(parameter, 0.0, std, generator=generator)

    def read_prompts(
        self, prompts: Tensor, trace: list[Tensor] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """Return hidden states [P, T, C] of prompts [P, T], and each layer's keys and values [P, H, T, D].

        What each layer gives, [P, T, C] before the final norm, is added to ``trace``.
        """
        x, cached = self._read_prompts(prompts, list(self.layers), trace)
        return self._norm(x), cached

    def _read_prompts(
        self, prompts: Tensor, layers: list[nn.Module], trace: list[Tensor] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        length = prompts.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        mask = _causal_mask(length)
        x, cached = F.embedding(prompts, self.embedding), []
        for layer in layers:
            assert isinstance(layer, Layer)
            q, k, v = layer.project(x, cos, sin)
            weights = torch.softmax(q @ k.transpose(-1, -2) * layer.shape.head_dim**-0.5 + mask, dim=-1)
            x = layer.finish(x, weights @ v)
            cached.append((k, v))
            if trace is not None:
                trace.append(x)
        return x, cached

    def read_answers(
        self,
        answers: Tensor,
        prompt_length: int,
        prompt_cache: list[KeysValues],
        cache: Cache | None = None,
        trace: list[Tensor] | None = None,
    ) -> Tensor:
        """Return hidden states [P, K, T, C] of answers [P, K, T], each continuing its prompt.

        With ``cache`` the tokens continue what the cache holds, and it is extended in place (no gradients). What each
        layer gives, [P, K, T, C] before the final norm, is added to ``trace``.
        """
        layers = list(self.layers)
        return self._norm(self._read_answers(answers, prompt_length, prompt_cache, layers, cache, trace))

    def _read_answers(
        self,
        answers: Tensor,
        prompt_length: int,
        prompt_cache: list[KeysValues],
        layers: list[nn.Module],
        cache: Cache | None = None,
        trace: list[Tensor] | None = None,
    ) -> Tensor:
        past = cache.length if cache else 0
        length = answers.shape[2]
        start = prompt_length + past
        cos, sin = self.cos[start : start + length], self.sin[start : start + length]
        mask = _causal_mask(length, past)
        x = F.embedding(answers, self.embedding)
        for i, (layer, (prompt_k, prompt_v)) in enumerate(zip(layers, prompt_cache, strict=True)):
            assert isinstance(layer, Layer)
            q, k, v = layer.project(x, cos, sin)
            if cache:
                k, v = _extend(cache.layers[i], k, v, past)
            x = layer.finish(x, _attend(q, k, v, prompt_k, prompt_v, mask))
            if trace is not None:
                trace.append(x)
        if cache:
            cache.length += length
        return x

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.shape.hidden,), self.norm, self.shape.eps)

    def forward(self, prompts: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return head outputs of prompts [P, T_p] and of answers [P, K, T_a] to them: [P, T_p, O], [P, K, T_a, O]."""
        prompt_hidden, prompt_cache = self.read_prompts(prompts)
        answer_hidden = self.read_answers(answers, prompts.shape[1], prompt_cache)
        return F.linear(prompt_hidden, self.head), F.linear(answer_hidden, self.head)

    def step_ends(
        self, prompts: Tensor, answers: Tensor, asked: Sequence[int] = (5,)
    ) -> tuple[Tensor, Tensor]:
        """Return what :meth:`forward` does, at the ends of prompts and regular steps only: [P, 1, O], [P, K, A, O].

        ``asked`` are the places within a step's six tokens; A = len(asked)·T_a / 6. The last layer is asked about
        nothing else, which saves a sixth of the work of training a value model.
        """
        *layers, last = self.layers
        assert isinstance(last, Layer)
        length, answer_length = prompts.shape[1], answers.shape[2]
        x, prompt_cache = self._read_prompts(prompts, layers)
        y = self._read_answers(answers, length, prompt_cache, layers)
        end = torch.tensor([length - 1])
        q, k, v = last.project_some(x, self.cos[:length], self.sin[:length], end)
        weights = torch.softmax(q @ k.transpose(-1, -2) * self.shape.head_dim**-0.5, dim=-1)
        x = last.finish(x[:, end], weights @ v)
        within, places = torch.arange(answer_length), slice(length, length + answer_length)
        chosen = within[torch.isin(within % 6, torch.tensor(asked))]
        q, own_k, own_v = last.project_some(y, self.cos[places], self.sin[places], chosen)
        mixed = _attend(q, own_k, own_v, k, v, _causal_mask(answer_length)[chosen])
        y = last.finish(y[:, :, chosen], mixed)
        return F.linear(self._norm(x), self.head), F.linear(self._norm(y), self.head)

    def state_dict_for_transformers(self, head: str) -> dict[str, Tensor]:
        """Return the weights under Hugging Face's Llama names, the head as ``head`` (``lm_head`` or ``score``)."""
        hidden, intermediate = self.shape.hidden, self.shape.intermediate
        out: dict[str, Tensor] = {
            "model.embed_tokens.weight": self.embedding,
            "model.norm.weight": self.norm,
            f"{head}.weight": self.head,
        }
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            q, k, v = torch.split(layer.qkv, hidden)
            gate, up = torch.split(layer.gate_up, intermediate)
            named = {
                "input_layernorm": layer.norm_attention,
                "post_attention_layernorm": layer.norm_mlp,
                "self_attn.q_proj": q,
                "self_attn.k_proj": k,
                "self_attn.v_proj": v,
                "self_attn.o_proj": layer.out,
                "mlp.gate_proj": gate,
                "mlp.up_proj": up,
                "mlp.down_proj": layer.down,
            }
            out.update({f"model.layers.{i}.{name}.weight": tensor for name, tensor in named.items()})
        return {name: tensor.detach().clone().contiguous() for name, tensor in out.items()}

    def load_from_transformers(self, weights: dict[str, Tensor], head: str) -> None:
        """Take over weights that :meth:`state_dict_for_transformers` (or Hugging Face) wrote."""
        weights = {name: tensor.float() for name, tensor in weights.items()}
        with torch.no_grad():
            self.embedding.copy_(weights["model.embed_tokens.weight"])
            self.norm.copy_(weights["model.norm.weight"])
            self.head.copy_(weights[f"{head}.weight"])
            for i, layer in enumerate(self.layers):
                assert isinstance(layer, Layer)
                at = f"model.layers.{i}."
                layer.norm_attention.copy_(weights[at + "input_layernorm.weight"])
                layer.norm_mlp.copy_(weights[at + "post_attention_layernorm.weight"])
                layer.qkv.copy_(torch.cat([weights[at + f"self_attn.{n}_proj.weight"] for n in "qkv"]))
                layer.out.copy_(weights[at + "self_attn.o_proj.weight"])
                layer.gate_up.copy_(torch.cat([weights[at + f"mlp.{n}_proj.weight"] for n in ("gate", "up")]))
                layer.down.copy_(weights[at + "mlp.down_proj.weight"])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x [..., T, H, D] rotated by position: Llama's rotary embedding, on the two halves of each head."""
    halves = x.view(*x.shape[:-1], 2, x.shape[-1] // 2)
    return torch.addcmul(halves * cos, halves.flip(-2), sin).flatten(-2)


def _causal_mask(length: int, past: int = 0) -> Tensor:
    """Return [length, past + length] of 0 if a token may look and -inf if not."""
    return torch.full((length, past + length), float("-inf")).triu(past + 1)


def _extend(layer: KeysValues, k: Tensor, v: Tensor, past: int) -> KeysValues:
    keys, values = layer
    end = past + k.shape[-2]
    keys[..., past:end, :] = k
    values[..., past:end, :] = v
    return keys[..., :end, :], values[..., :end, :]


def _attend(q: Tensor, k: Tensor, v: Tensor, prompt_k: Tensor, prompt_v: Tensor, mask: Tensor) -> Tensor:
    """Return softmax attention of q [P, K, H, T, D] over its prompt [P, H, T_p, D] and itself [P, K, H, S, D]."""
    prompts, answers, heads, length, size = q.shape
    q = q * size**-0.5
    grouped = q.transpose(1, 2).reshape(prompts, heads, answers * length, size)
    to_prompt = (
        (grouped @ prompt_k.transpose(-1, -2)).view(prompts, heads, answers, length, -1).transpose(1, 2)
    )
    weights = torch.softmax(torch.cat([to_prompt, q @ k.transpose(-1, -2) + mask], dim=-1), dim=-1)
    on_prompt, on_answer = torch.split(weights, [prompt_k.shape[-2], k.shape[-2]], dim=-1)
    regrouped = on_prompt.transpose(1, 2).reshape(prompts, heads, answers * length, -1)
    from_prompt = (regrouped @ prompt_v).view(prompts, heads, answers, length, size).transpose(1, 2)
    return from_prompt + on_answer @ v
