# Licensed under the Apache License, Version 2.0.
"""Rows of every rank, with and without gradient, for uneven counts.

Without an initialised process group, or with a single rank, each function
returns what it was given.
"""
from typing import Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_rank
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def exchange_counts(*counts: int) -> list[list[int]]:
    """Tell every rank some integers of every other rank.

    Args:
        *counts: Integers of this rank, as many on each rank.

    Returns:
        list[list[int]]: Of each count, those of all ranks, in their order.
    """
    mine = torch.tensor(counts, dtype=torch.int64)
    return torch.stack(all_gather(mine), 1).tolist()


class _GatherRows(Function):
    """Concatenate the rows of all ranks; sum their gradients over ranks."""

    @staticmethod
    def forward(ctx, rows: Tensor, counts: list[int]) -> Tensor:
        rank = get_rank()
        ctx.start, ctx.stop = sum(counts[:rank]), sum(counts[:rank + 1])
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[:len(rows)] = rows
        parts = all_gather(padded)
        return torch.cat([part[:n] for part, n in zip(parts, counts)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return reduce_over_ranks(grad)[ctx.start:ctx.stop], None


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
    reduced = value.detach().clone(memory_format=torch.contiguous_format)
    all_reduce(reduced, operation)
    return reduced
