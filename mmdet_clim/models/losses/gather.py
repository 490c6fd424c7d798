# Licensed under the Apache License, Version 2.0.
"""Rows of every rank, with and without gradient, for uneven counts.

Without an initialised process group, or with a single rank, each function
returns what it was given.
"""
from typing import List, Sequence

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from torch import Tensor, distributed
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def exchange_counts(counts: Sequence[int],
                    device: torch.device) -> List[List[int]]:
    """Tell every rank some integers of every other rank.

    Args:
        counts (Sequence[int]): Integers of this rank, as many on each rank.
        device (torch.device): Where the process group's backend expects
            its tensors.

    Returns:
        list[list[int]]: One list per rank, in rank order.
    """
    world_size = get_world_size()
    if world_size == 1:
        return [list(counts)]
    mine = torch.tensor(list(counts), dtype=torch.int64, device=device)
    table = [torch.empty_like(mine) for _ in range(world_size)]
    distributed.all_gather(table, mine)
    return torch.stack(table).tolist()


class _GatherRows(Function):
    """Concatenate the rows of all ranks; sum their gradients over ranks."""

    @staticmethod
    def forward(ctx, rows: Tensor, counts: List[int]) -> Tensor:
        rank = get_rank()
        ctx.start, ctx.stop = sum(counts[:rank]), sum(counts[:rank + 1])
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[:len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, counts)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        grad = grad.contiguous().clone()
        distributed.all_reduce(grad)
        return grad[ctx.start:ctx.stop], None


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Concatenate the rows of all ranks in rank order, with gradient.

    The backward pass sums over ranks, so every rank has to run it or none.

    Args:
        rows (Tensor): (N, ...), ``N == counts[rank]``. Not bool.
        counts (Sequence[int]): Rows of every rank.

    Returns:
        Tensor: (sum(counts), ...).
    """
    if len(counts) == 1:
        return rows
    return _GatherRows.apply(rows, list(counts))


def reduce_over_ranks(value: Tensor, operation: str = 'sum') -> Tensor:
    """Reduce a tensor of one shape on every rank, without gradient.

    Args:
        value (Tensor): It stays as it is.
        operation (str): ``'sum'`` or ``'max'``.
    """
    reduced = value.detach().clone()
    all_reduce(reduced, operation)
    return reduced
