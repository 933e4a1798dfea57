"""Tensors that lie on many processes (torch's DTensor), and how they meet plain ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def spread(tensor: torch.Tensor) -> DTensor | None:
    """Return a tensor that lies on many processes, None for a plain one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None  # importing DTensor takes longer than many a run's first step
    from torch.distributed.tensor import DTensor

    return tensor if isinstance(tensor, DTensor) else None


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor; one that is spread is gathered, which all its processes must ask for."""
    found = spread(tensor)
    return tensor if found is None else found.full_tensor().detach()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's own part of a tensor."""
    found = spread(tensor)
    return tensor if found is None else found.to_local()


def part_for(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor as `like` is: spread in the same way, each process taking its own part of it."""
    found = spread(like)
    if found is None:
        return values
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(values.detach(), found.device_mesh, found.placements, src_data_rank=None)
