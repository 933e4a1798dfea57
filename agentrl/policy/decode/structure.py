"""Finding the parts of a Llama-like model by looking at its modules, never at its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from agentrl.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

STEADY_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary kinds whose angles do not change with the length of the sequence."""

BLOCK_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
NORM_PARTS = {"q_norm", "k_norm"}
FEED_FORWARD_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}

Part = TypeVar("Part")


@dataclass(frozen=True)
class Norm:
    """An RMSNorm: x / sqrt(mean x^2 + eps) * weight."""

    weight: torch.Tensor
    eps: float


@dataclass(frozen=True)
class Attention:
    """The attention of one layer; the two norms are those of Qwen3, None elsewhere."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    query_norm: Norm | None
    key_norm: Norm | None
    scale: float


@dataclass(frozen=True)
class Block:
    """One layer."""

    attention: Attention
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    norm: Norm
    ff_norm: Norm


@dataclass(frozen=True)
class Structure:
    """A Llama-like causal model taken apart: references to its weights, not copies.

    `rotary(like, positions)` gives cosine and sine, each (1, positions, head size).
    """

    embed: nn.Embedding
    blocks: tuple[Block, ...]
    norm: Norm
    head: nn.Linear
    rotary: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    heads: int
    key_heads: int
    head_size: int

    @property
    def hidden(self) -> int:
        """D, the width of the residual stream."""
        return self.embed.embedding_dim


def read_structure(model: nn.Module, context: int) -> Structure:
    """Take a model apart.

    Raises:
        PolicyError: the model is not Llama-like; the sentence names the first part that differs.
    """
    inner = _part(model, "model", nn.Module)
    _check_children(model, {"model", "lm_head"}, "the model")
    _check_children(inner, {"embed_tokens", "layers", "norm", "rotary_emb"}, "model.model")
    if windowed(model, context):
        raise PolicyError(
            f"the model attends over a sliding window shorter than the context of {context} tokens"
        )
    layers = _part(inner, "layers", nn.ModuleList)
    blocks = tuple(_read_block(layer) for layer in layers)
    rotary = _part(inner, "rotary_emb", nn.Module)
    kind = getattr(rotary, "rope_type", None)
    if kind not in STEADY_ROPE:
        raise PolicyError(
            f"its rotary embedding is of kind {kind!r}, whose angles may change with the length"
        )
    first = _part(layers[0], "self_attn", nn.Module)
    size = getattr(first, "head_dim", None)
    if not isinstance(size, int) or size % 2 != 0:
        raise PolicyError(f"its head size is {size!r}, and an even number is needed")
    return Structure(
        embed=_part(inner, "embed_tokens", nn.Embedding),
        blocks=blocks,
        norm=_read_norm(inner, "norm"),
        head=_linear(model, "lm_head"),
        rotary=rotary,
        heads=blocks[0].attention.query.out_features // size,
        key_heads=blocks[0].attention.key.out_features // size,
        head_size=size,
    )


def windowed(model: nn.Module, context: int) -> bool:
    """Whether some layer sees less than `context` tokens, as far as the configuration tells."""
    config = getattr(model, "config", None)
    kinds: object = getattr(config, "layer_types", None)
    if isinstance(kinds, list) and kinds:
        sliding = any(kind != "full_attention" for kind in kinds)
    else:
        sliding = getattr(config, "use_sliding_window", True) is not False
    window: object = getattr(config, "sliding_window", None)
    if isinstance(kinds, list) and any(kind not in {"full_attention", "sliding_attention"} for kind in kinds):
        return True
    return sliding and isinstance(window, int) and window < context


def _read_block(layer: nn.Module) -> Block:
    _check_children(layer, BLOCK_PARTS, "a layer")
    attention, feed = _part(layer, "self_attn", nn.Module), _part(layer, "mlp", nn.Module)
    _check_children(feed, FEED_FORWARD_PARTS, "a feed-forward block")
    activation = getattr(feed, "act_fn", None)
    if type(activation).__name__ not in {"SiLU", "SiLUActivation"}:
        raise PolicyError(f"its feed-forward activation is {type(activation).__name__}, not SiLU")
    return Block(
        attention=_read_attention(attention),
        gate=_linear(feed, "gate_proj"),
        up=_linear(feed, "up_proj"),
        down=_linear(feed, "down_proj"),
        norm=_read_norm(layer, "input_layernorm"),
        ff_norm=_read_norm(layer, "post_attention_layernorm"),
    )


def _read_attention(attention: nn.Module) -> Attention:
    normed = hasattr(attention, "q_norm")
    _check_children(attention, ATTENTION_PARTS | (NORM_PARTS if normed else set()), "an attention block")
    scale = getattr(attention, "scaling", None)
    if not isinstance(scale, float):
        raise PolicyError(f"its attention scale is {scale!r}, and a number is needed")
    return Attention(
        query=_linear(attention, "q_proj"),
        key=_linear(attention, "k_proj"),
        value=_linear(attention, "v_proj"),
        out=_linear(attention, "o_proj"),
        query_norm=_read_norm(attention, "q_norm") if normed else None,
        key_norm=_read_norm(attention, "k_norm") if normed else None,
        scale=scale,
    )


def _read_norm(owner: nn.Module, name: str) -> Norm:
    norm = _part(owner, name, nn.Module)
    weight: object = getattr(norm, "weight", None)
    eps: object = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if (
        not isinstance(weight, torch.Tensor)
        or not isinstance(eps, float)
        or getattr(norm, "bias", None) is not None
    ):
        raise PolicyError(f"its {name} is not an RMSNorm")
    return Norm(weight, eps)


def _linear(owner: nn.Module, name: str) -> nn.Linear:
    linear = _part(owner, name, nn.Linear)
    if type(linear) is not nn.Linear:
        raise PolicyError(f"its {name} is a {type(linear).__name__}, not a plain linear layer")
    return linear


def _part(owner: nn.Module, name: str, kind: type[Part]) -> Part:
    part: object = getattr(owner, name, None)
    if not isinstance(part, kind):
        raise PolicyError(f"{type(owner).__name__}.{name} is {type(part).__name__}, not {kind.__name__}")
    return part


def _check_children(owner: nn.Module, expected: set[str], what: str) -> None:
    found = {name for name, _ in owner.named_children()}
    if found != expected:
        raise PolicyError(
            f"{what} has the parts {sorted(found)}, where a Llama-like one has {sorted(expected)}"
        )
