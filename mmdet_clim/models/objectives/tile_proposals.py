# Licensed under the Apache License, Version 2.0.
"""Which proposals belong to which tile of a mosaic."""
from typing import Tuple

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

REGION_KINDS = ('tiles', 'proposals')


def check_region_kind(regions: str) -> None:
    """Raise a ValueError unless ``regions`` is one of the kinds."""
    if regions not in REGION_KINDS:
        raise ValueError(f'regions: expected one of {REGION_KINDS}, got '
                         f'{regions!r}')


def assign_to_tiles(proposals: Tensor,
                    tiles: Tensor,
                    min_overlap: float = 0.3,
                    max_proposals: int = 128) -> Tuple[Tensor, Tensor]:
    """Give each proposal to the tile that holds most of it.

    The share is the intersection over the proposal's own area (REFERENCE.md,
    section 2, tag objective).

    Args:
        proposals (Tensor): Shape (P, 4), absolute xyxy, best score first.
        tiles (Tensor): Shape (K, 4), absolute xyxy, K > 0.
        min_overlap (float): A proposal belongs to no tile unless a larger
            share of its own area lies in one.
        max_proposals (int): The most that one tile keeps, the best by score.

    Returns:
        tuple[Tensor, Tensor]: ``owns``, bool (P, K): which proposal belongs
        to which tile; and the proposals clamped to the tile that holds most
        of each, (P, 4).
    """
    share, owner = bbox_overlaps(proposals, tiles, mode='iof').max(1)
    owns = torch.zeros(
        len(proposals), len(tiles), dtype=torch.bool, device=tiles.device)
    owns[torch.arange(len(owner)), owner] = share > min_overlap
    owns &= owns.cumsum(0) <= max_proposals
    of_tile = tiles[owner]
    clamped = torch.cat([
        torch.max(proposals[:, :2], of_tile[:, :2]),
        torch.min(proposals[:, 2:], of_tile[:, 2:])
    ], 1)
    return owns, clamped


def largest_in_tiles(proposals: Tensor,
                     tiles: Tensor,
                     min_overlap: float = 0.3,
                     max_proposals: int = 128) -> Tensor:
    """The largest likely object of each tile.

    Args:
        proposals (Tensor): As :func:`assign_to_tiles` takes them.
        tiles (Tensor): As :func:`assign_to_tiles` takes them.
        min_overlap (float): As :func:`assign_to_tiles` takes it.
        max_proposals (int): As :func:`assign_to_tiles` takes it.

    Returns:
        Tensor: Shape (K, 4): of the proposals of each tile, clamped to it,
        the largest; the tile's own box where it has none.
    """
    if len(proposals) == 0:
        return tiles
    owns, clamped = assign_to_tiles(proposals, tiles, min_overlap,
                                    max_proposals)
    areas = (clamped[:, 2:] - clamped[:, :2]).clamp(min=0).prod(1)
    largest = (areas[:, None] + 1).masked_fill(~owns, 0).argmax(0)
    return torch.where(owns.any(0)[:, None], clamped[largest], tiles)
