"""Our own decode loop for Qwen2, Llama, Qwen3 and Mistral-like models: few operations, no padding, no holes.

The weights are rewritten once (`fuse`) so that a layer is a handful of operations: q, k and v in one matrix
with the norm's gain and the attention scale folded in, gate and up in another, and rotary pairs made
neighbours so that the rotation is one complex product. In the last layer only the last token of each row
looks around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from agentrl.policy.decode.layout import Group, Layout, Planner, Sizes
from agentrl.policy.decode.structure import Attention, Block, Structure, read_structure

if TYPE_CHECKING:
    from agentrl.policy.decode.engine import Chunks


@dataclass(frozen=True)
class FusedLayer:
    """One layer: matrices stand as (in, out); D hidden, P = H + 2K heads times the head size, F feed-forward.

    Args:
        project: (D, P) and `project_bias` (P,), None without biases.
        head_gain: (H + K, head size) gain of the norm on queries and keys, None without one.
        out: (H * head size, D), `out_bias` (D,).
        up: (D, 2F), gate first, `up_bias` (2F,); down: (F, D), `down_bias` (D,).
        norm_floor, ff_floor, head_floor: sqrt(eps * width) of the three norms.
    """

    project: torch.Tensor
    project_bias: torch.Tensor | None
    head_gain: torch.Tensor | None
    out: torch.Tensor
    out_bias: torch.Tensor | None
    up: torch.Tensor
    up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None
    norm_floor: torch.Tensor
    ff_floor: torch.Tensor
    head_floor: torch.Tensor


@dataclass(frozen=True)
class Fused:
    """A whole model: embed (V, D), head (D, V), rotation (context, 1, head size / 2)."""

    embed: torch.Tensor
    layers: tuple[FusedLayer, ...]
    head: torch.Tensor
    head_bias: torch.Tensor | None
    floor: torch.Tensor
    rotation: torch.Tensor


def fuse(structure: Structure, context: int, dtype: torch.dtype) -> Fused:
    """Rewrite the model's weights for the loop; copies, never views. Folding is done in at least float32."""
    with torch.no_grad():
        norm = structure.norm
        scale = structure.hidden**0.5
        head = structure.head.weight.float() * (norm.weight.float() * scale)
        return Fused(
            embed=structure.embed.weight.detach().to(dtype, copy=True),
            layers=tuple(_fuse_layer(structure, block, dtype) for block in structure.blocks),
            head=head.t().contiguous().to(dtype),
            head_bias=_cast(structure.head.bias, dtype),
            floor=_floor(norm.eps, structure.hidden, head.device),
            rotation=_rotation(structure, context),
        )


def _fuse_layer(structure: Structure, block: Block, dtype: torch.dtype) -> FusedLayer:
    attention, scale = block.attention, structure.hidden**0.5
    gain = block.norm.weight.float() * scale
    ff_gain = block.ff_norm.weight.float() * scale
    device = gain.device
    weight, bias = _fuse_heads(structure, attention)
    up = torch.cat([block.gate.weight.float(), block.up.weight.float()]) * ff_gain
    return FusedLayer(
        project=(weight * gain).t().contiguous().to(dtype),
        project_bias=_cast(bias, dtype),
        head_gain=_cast(_head_gain(structure, attention), dtype),
        out=attention.out.weight.float().t().contiguous().to(dtype),
        out_bias=_cast(attention.out.bias, dtype),
        up=up.t().contiguous().to(dtype),
        up_bias=_cast(_stack([block.gate, block.up]), dtype),
        down=block.down.weight.float().t().contiguous().to(dtype),
        down_bias=_cast(block.down.bias, dtype),
        norm_floor=_floor(block.norm.eps, structure.hidden, device),
        ff_floor=_floor(block.ff_norm.eps, structure.hidden, device),
        head_floor=_floor(
            attention.query_norm.eps if attention.query_norm is not None else 0.0,
            structure.head_size,
            device,
        ),
    )


def _fuse_heads(structure: Structure, attention: Attention) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack q, k, v; make rotary pairs neighbours in q and k; fold the scale into q unless a norm follows."""
    size, order = structure.head_size, _pair_order(structure.head_size)
    rows: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    for linear, rotary in ((attention.query, True), (attention.key, True), (attention.value, False)):
        scaled = linear is attention.query and attention.query_norm is None
        factor = attention.scale if scaled else 1.0
        bias = _bias(linear)
        weight = linear.weight.float().reshape(-1, size, linear.in_features) * factor
        bias = bias.float().reshape(-1, size) * factor
        rows.append((weight[:, order] if rotary else weight).reshape(linear.out_features, -1))
        biases.append((bias[:, order] if rotary else bias).reshape(-1))
    linears = (attention.query, attention.key, attention.value)
    return torch.cat(rows), torch.cat(biases) if any(map(_biased, linears)) else None


def _head_gain(structure: Structure, attention: Attention) -> torch.Tensor | None:
    """(H + K, head size) gain after the norm of queries and keys, with the attention scale on the queries."""
    if attention.query_norm is None or attention.key_norm is None:
        return None
    order, scale = _pair_order(structure.head_size), structure.head_size**0.5
    query = attention.query_norm.weight.float()[order] * (scale * attention.scale)
    key = attention.key_norm.weight.float()[order] * scale
    return torch.cat([query.expand(structure.heads, -1), key.expand(structure.key_heads, -1)])


def _pair_order(size: int) -> torch.Tensor:
    """Rotary rotates (i, i + size / 2) together: 0, size / 2, 1, size / 2 + 1, ..."""
    return torch.arange(size).view(2, -1).t().reshape(-1)


def _rotation(structure: Structure, context: int) -> torch.Tensor:
    """(context, 1, head size / 2) complex64 from the model's own rotary embedding."""
    device = structure.embed.weight.device
    positions = torch.arange(context, device=device)[None]
    cosine, sine = structure.rotary(torch.zeros(1, device=device), positions)
    half = structure.head_size // 2
    return torch.complex(cosine[0, :, None, :half].float(), sine[0, :, None, :half].float()).contiguous()


def _stack(linears: list[nn.Linear]) -> torch.Tensor | None:
    return torch.cat([_bias(linear) for linear in linears]) if any(map(_biased, linears)) else None


def _biased(linear: nn.Linear) -> bool:
    return isinstance(getattr(linear, "bias", None), torch.Tensor)


def _bias(linear: nn.Linear) -> torch.Tensor:
    return linear.bias if _biased(linear) else linear.weight.new_zeros(linear.out_features)


def _cast(values: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if values is None else values.detach().to(dtype, copy=True)


def _floor(eps: float, width: int, device: torch.device) -> torch.Tensor:
    return torch.tensor((eps * width) ** 0.5, device=device)


def _normalise(hidden: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """X / sqrt(sum x^2 + eps * width): RMSNorm but for sqrt(width) and the gain, which the weights carry."""
    size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
    return (hidden / torch.hypot(size, floor)).to(hidden.dtype)


def _linear(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.mm(hidden, weight) if bias is None else torch.addmm(bias, hidden, weight)


def _residual(
    hidden: torch.Tensor, change: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    total = torch.addmm(hidden, change, weight)
    return total if bias is None else total.add_(bias)


class FusedBackend:
    """The loop, its weights and its cache.

    The cache is (layers, 2, slots, K, context, head size), zeros at first. The fused weights are a second
    copy of the model's.

    Args:
        model: a causal model whose structure `read_structure` understands.
        slots, context: size of the cache.
        dtype: of weights, cache and arithmetic; the model's own by default.

    Raises:
        PolicyError: the model is not of this kind; the sentence says why.
    """

    def __init__(
        self, model: nn.Module, *, slots: int, context: int, dtype: torch.dtype | None = None
    ) -> None:
        self._model = model
        self._context = context
        structure = read_structure(model, context)
        weight = structure.embed.weight
        self.dtype = weight.dtype if dtype is None else dtype
        self._structure = structure
        self._fused = fuse(structure, context, self.dtype)
        self._sizes = Sizes(slots, structure.heads, structure.key_heads, context)
        self._plan = Planner(self._sizes, weight.device, self.dtype)
        shape = (len(structure.blocks), 2, slots, structure.key_heads, context, structure.head_size)
        self._cache = torch.zeros(shape, dtype=self.dtype, device=weight.device)

    @property
    def vocabulary(self) -> int:
        """V."""
        return self._fused.embed.shape[0]

    @torch.inference_mode()
    def wipe(self, slot: int) -> None:
        """Zero a slot."""
        self._cache[:, :, slot] = 0

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions to another."""
        self._cache[:, :, target, :, :length] = self._cache[:, :, source, :, :length]

    def refresh(self) -> None:
        """Fuse the model's present weights."""
        self._structure = read_structure(self._model, self._context)
        self._fused = fuse(self._structure, self._context, self.dtype)

    @torch.inference_mode()
    def read(self, chunks: Chunks) -> torch.Tensor:
        """Feed the chunks; (R, V) logits that follow each row's last token."""
        layout, fused = self._plan(chunks), self._fused
        hidden = fused.embed.index_select(0, layout.tokens)
        rotation = fused.rotation.index_select(0, layout.positions)
        final = len(fused.layers) - 1
        for index, layer in enumerate(fused.layers):
            last = index == final
            attended = self._attention(index, layer, hidden, rotation, layout, last=last)
            if last and layout.last is not None:
                hidden = hidden.index_select(0, layout.last)
            hidden = _residual(hidden, attended, layer.out, layer.out_bias)
            gated = _linear(_normalise(hidden, layer.ff_floor), layer.up, layer.up_bias)
            gate, up = gated.chunk(2, dim=-1)
            hidden = _residual(hidden, functional.silu(gate).mul_(up), layer.down, layer.down_bias)
        return _linear(_normalise(hidden, fused.floor), fused.head, fused.head_bias)

    def _attention(
        self,
        index: int,
        layer: FusedLayer,
        hidden: torch.Tensor,
        rotation: torch.Tensor,
        layout: Layout,
        *,
        last: bool,
    ) -> torch.Tensor:
        """Project, rotate, write the cache, attend; (T, H * head size), or (R, ...) in the last layer."""
        heads, size = self._sizes.heads, self._cache.shape[-1]
        turned = heads + self._sizes.key_heads
        projected = _linear(_normalise(hidden, layer.norm_floor), layer.project, layer.project_bias)
        projected = projected.view(hidden.shape[0], -1, size)
        rotary = projected[:, :turned]
        if layer.head_gain is not None:
            rotary.copy_(_normalise(rotary, layer.head_floor) * layer.head_gain)
        pairs = rotary.view(*rotary.shape[:2], size // 2, 2)
        if self.dtype == torch.float32:
            torch.view_as_complex(pairs).mul_(rotation)
        else:
            pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * rotation))
        memory = self._cache[index]
        memory.view(-1, size).index_copy_(0, layout.write, projected[:, heads:].reshape(-1, size))
        flat = projected.view(-1, size)
        groups = (layout.final,) if last else layout.groups
        attended = [self._attend(flat, memory, group) for group in groups]
        return attended[0] if len(attended) == 1 else torch.cat(attended)

    def _attend(self, flat: torch.Tensor, memory: torch.Tensor, group: Group) -> torch.Tensor:
        """One group's attention over the cache; (tokens of the group, H * head size)."""
        rows, width, keys = group.shape
        heads, shared, size = self._sizes.heads, self._sizes.key_heads, flat.shape[-1]
        query = flat.index_select(0, group.query)
        if isinstance(group.slots, slice):
            key, value = memory[0, group.slots, :, :keys], memory[1, group.slots, :, :keys]
        else:
            key, value = (memory[side, :, :, :keys].index_select(0, group.slots) for side in (0, 1))
        if width == 1:
            key, value = key.flatten(0, 1), value.flatten(0, 1)
            score = torch.bmm(query.view(rows * shared, -1, size), key.transpose(1, 2))
            score.view(rows, heads, 1, keys).add_(group.mask)
            output = torch.bmm(score.softmax(dim=-1), value).view(rows, heads * size)
        else:
            output = functional.scaled_dot_product_attention(
                query.view(rows, heads, width, size),
                key,
                value,
                attn_mask=group.mask,
                scale=1.0,
                enable_gqa=True,
            )
            output = output.transpose(1, 2).reshape(rows * width, heads * size)
        return output if group.select is None else output.index_select(0, group.select)
