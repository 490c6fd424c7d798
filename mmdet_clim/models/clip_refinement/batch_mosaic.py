# Licensed under the Apache License, Version 2.0.
"""Mosaics made on the device, of a batch that is there already."""
from functools import lru_cache
from typing import NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.checks import check_range, check_size

Grid = tuple[int, int]
# Rows and columns of a mosaic that a CPU makes by one product of matrices.
BLOCK = 32


class MosaicBatch(NamedTuple):
    """What :class:`BatchMosaic` makes of N images.

    ``mosaics`` is (M, 3, H, W). ``rois`` is (R, 5): the number of a mosaic
    and the visible area of a tile, absolute xyxy pixels of the mosaic. Region
    ``r`` shows image ``r`` of the batch; the images from R on are in no
    mosaic.
    """

    mosaics: Tensor
    rois: Tensor


def choose_grids(grids: Sequence[Grid], num_images: int,
                 num_whole: int) -> list[Grid]:
    """The mosaics that a batch is made into.

    Each grid is taken once, then, in turn, every grid that the rest still
    fills, until it fills none.

    Args:
        grids (Sequence[tuple[int, int]]): (rows, cols); empty: no mosaic.
        num_images (int): Images of the batch.
        num_whole (int): Images that are to stay whole, at least.

    Returns:
        list[tuple[int, int]]: Grids with repetitions; what they leave over
        is at least ``num_whole`` and less than that plus the smallest grid.

    Raises:
        ValueError: If the batch is too small for one of each.
    """
    needed = sum(rows * cols for rows, cols in grids) + num_whole
    if num_images < needed:
        raise ValueError(
            f'grids={tuple(grids)}, num_whole={num_whole}: expected a batch '
            f'of at least {needed} images, got {num_images}: '
            f'{needed - num_images} images are missing')
    chosen = list(grids)
    left = num_images - needed
    while any(rows * cols <= left for rows, cols in grids):
        for rows, cols in grids:
            if rows * cols <= left:
                chosen.append((rows, cols))
                left -= rows * cols
    return chosen


class BatchMosaic(nn.Module):
    r"""Tile the images of a batch into mosaics of one size.

    ::

        N = 32 images of H x W, grids 2x2, 3x3, 4x4 (REFERENCE.md, section 4)

        0 1 2 3 | 4 ... 12 | 13 ... 28 | 29 30 31
        +---+---+ +--+--+--+ +-+-+-+-+
        | 0 | 1 | |  |  |  | | | | | |   three stay whole
        +---+---+ +--+--+--+ +-+-+-+-+
        | 2 | 3 | |  |  |  | | | | | |
        +---+---+ +--+--+--+ +-+-+-+-+

    A mosaic is a view of its images, laid out row by row and resized once,
    bicubically; with antialiasing where a side of it shrinks. An image of a
    batch fills its upper left corner and is padded below and to the right;
    the region of a tile is what the image fills: the whole cell where images
    are not padded.

    Args:
        grids (Sequence[tuple[int, int]]): (rows, cols) of the mosaics, each
            made at least once, and again while images are left for it.
        num_whole (int): Images that are kept out of mosaics, at least.
        size (tuple[int, int], optional): (width, height) in pixels of the
            mosaics. Defaults to that of the images.

    Raises:
        ValueError: If a grid, ``num_whole`` or ``size`` is out of its range.
    """

    def __init__(self,
                 grids: Sequence[Grid] = ((2, 2), (3, 3), (4, 4)),
                 num_whole: int = 0,
                 size: tuple[int, int] | None = None) -> None:
        super().__init__()
        if any(len(grid) != 2 or min(grid) < 1 for grid in grids):
            raise ValueError('grids: expected (rows, cols) of at least 1, got '
                             f'{grids}')
        check_range(0, num_whole=num_whole)
        check_size(size=size)
        self.grids = tuple((int(rows), int(cols)) for rows, cols in grids)
        self.num_whole = num_whole
        self.size = None if size is None else tuple(size)

    def extra_repr(self) -> str:
        return (f'grids={self.grids}, num_whole={self.num_whole}, '
                f'size={self.size}')

    def forward(self, images: Tensor,
                sizes: Sequence[tuple[int, int]]) -> MosaicBatch:
        """Make the mosaics.

        Args:
            images (Tensor): (N, 3, H, W).
            sizes (Sequence[tuple[int, int]]): (height, width) in pixels that
                each image fills.

        Returns:
            MosaicBatch: ``mosaics`` and ``rois``; both empty without grids.

        Raises:
            ValueError: If the batch is too small.
        """
        num_images, _, *own = images.shape
        height, width = own if self.size is None else self.size[::-1]
        # By what an image is resized before it is one tile of many.
        scale = images.new_tensor([height / own[0], width / own[1]])
        grids = choose_grids(self.grids, num_images, self.num_whole)
        # Written in place: to stack them would take each twice.
        mosaics = images.new_empty(len(grids), images.shape[1], height, width)
        boxes: list[Tensor] = [images.new_zeros(0, 4)]
        numbers: list[int] = []
        start = 0
        for number, (rows, cols) in enumerate(grids):
            stop = start + rows * cols
            mosaics[number] = _tile(images[start:stop], rows, cols,
                                    (height, width))
            filled = images.new_tensor(sizes[start:stop]) * scale  # (h, w)
            boxes.append(_tile_boxes(filled, rows, cols, height, width))
            numbers.extend([number] * (rows * cols))
            start = stop
        of_mosaic = images.new_tensor(numbers)[:, None]
        rois = torch.cat([of_mosaic, torch.cat(boxes)], 1)
        return MosaicBatch(mosaics, rois)


def _tile(images: Tensor, rows: int, cols: int, size: tuple[int,
                                                            int]) -> Tensor:
    """(rows * cols, 3, h, w) to one mosaic (3, H, W) of ``size``."""
    height, width = images.shape[2:]
    # Where nothing shrinks, torch's antialiasing is another bicubic kernel.
    shrinks = rows * height > size[0] or cols * width > size[1]
    if shrinks and images.device.type == 'cpu':
        return _shrink(images.unflatten(0, (rows, cols)), size)
    laid_out = torch.cat(
        [torch.cat(list(row), 2) for row in images.split(cols)], 1)
    return F.interpolate(
        laid_out[None], size, mode='bicubic', antialias=shrinks)[0]


@torch.autocast('cpu', enabled=False)
def _shrink(tiles: Tensor, size: tuple[int, int]) -> Tensor:
    """As ``interpolate`` of the tiles laid out, which are not laid out here.

    To lay out large images takes as long as to shrink them, and torch's
    kernel for it on a CPU is no faster than products of matrices that are
    mostly zero.

    Args:
        tiles (Tensor): (rows, cols, 3, h, w).
        size (tuple[int, int]): (height, width) of the mosaic.
    """
    rows, cols, channels, height, width = tiles.shape
    mosaic = tiles.new_empty(channels, *size)
    top = 0
    for first, weights in _blocks(rows * height, size[0], tiles.dtype):
        last = first + weights.shape[1]
        parts = []
        for row in range(first // height, -(-last // height)):
            start = max(first, row * height)
            stop = min(last, (row + 1) * height)
            seen = tiles[row, :, :, start - row * height:stop - row * height]
            parts.append(weights[:, start - first:stop - first] @ seen)
        lines = sum(parts[1:], parts[0]).permute(1, 2, 0,
                                                 3).reshape(-1, cols * width)
        mosaic[:, top:top + len(weights)] = torch.cat([
            lines[:, start:start + len(across[0])] @ across.t()
            for start, across in _blocks(cols * width, size[1], tiles.dtype)
        ], 1).unflatten(0, (channels, -1))
        top += len(weights)
    return mosaic


@lru_cache(maxsize=16)
def _blocks(source: int, target: int,
            dtype: torch.dtype) -> list[tuple[int, Tensor]]:
    """How ``source`` pixels become ``target`` ones, bicubic and antialiased.

    Returns:
        list[tuple[int, Tensor]]: Per block of at most ``BLOCK`` of the
        target, the first pixel of the source that it is made of, and the
        weights (block, pixels), in order.
    """
    scale = source / target
    reach = 2 * max(scale, 1)
    blocks = []
    for start in range(0, target, BLOCK):
        stop = min(start + BLOCK, target)
        first = max(int(start * scale - reach), 0)
        last = min(int(stop * scale + reach) + 1, source)
        centres = (torch.arange(start, stop, dtype=torch.float64) +
                   0.5) * scale
        pixels = torch.arange(first, last, dtype=torch.float64) + 0.5
        x = (pixels - centres[:, None]).abs() * 2 / reach
        # Keys' kernel with a = -0.5, as torch and Pillow have it.
        weights = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1,
                              ((-0.5 * x + 2.5) * x - 4) * x + 2)
        weights[x >= 2] = 0
        weights /= weights.sum(1, keepdim=True)
        blocks.append((first, weights.to(dtype)))
    return blocks


def _tile_boxes(filled: Tensor, rows: int, cols: int, height: int,
                width: int) -> Tensor:
    """The area that each tile's image fills, (rows * cols, 4) xyxy."""
    top = torch.arange(rows, device=filled.device) * (height / rows)
    left = torch.arange(cols, device=filled.device) * (width / cols)
    corner = torch.cartesian_prod(top, left).flip(1)
    extent = filled.flip(1) / filled.new_tensor([cols, rows])
    return torch.cat([corner, corner + extent], 1)
