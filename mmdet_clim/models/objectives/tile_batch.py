# Licensed under the Apache License, Version 2.0.
"""The tiles of all images of a branch, and what lies in them."""
from dataclasses import dataclass, field
from itertools import combinations
from typing import Iterable, Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..host import upload


def compose_tiles(grid: tuple[int, int], num: int) -> Tensor:
    """Draw distinct rectangles of at least two tiles, of any grid.

    Both ends of each axis are drawn with replacement, single tiles rejected
    and rectangles that were drawn before too (REFERENCE.md, section 2). A
    side of several tiles has two orders of its ends, so that a rectangle is
    twice as likely for each: the first has 2.67, 3.89 and 5.33 tiles on
    average in grids of 2 x 2, 3 x 3 and 4 x 4.

    Args:
        grid (tuple[int, int]): Rows and columns of the mosaic.
        num (int): How many to draw; all there are where the grid has fewer.

    Returns:
        Tensor: Which tiles each rectangle holds, bool of shape
        (n, rows * columns), tiles in row-major order; rectangles in the order
        of their sides, not of the draws.

    Raises:
        ValueError: If a side of the grid is below 1 or ``num`` below 0.

    Example:
        >>> compose_tiles((1, 2), 4)
        tensor([[True, True]])
    """
    rows, cols = grid
    if rows < 1 or cols < 1:
        raise ValueError(f'grid: expected rows and columns >= 1, got {grid}')
    if num < 0:
        raise ValueError(f'num: expected a count >= 0, got {num}')
    rectangles = [(top, bottom, left, right)
                  for top, bottom in combinations(range(rows + 1), 2)
                  for left, right in combinations(range(cols + 1), 2)
                  if (bottom - top) * (right - left) > 1]
    orders = torch.tensor([(1 + (bottom - top > 1)) * (1 + (right - left > 1))
                           for top, bottom, left, right in rectangles])
    # Times until each is drawn first; those of greater weight come earlier.
    times = -torch.rand(len(rectangles)).log() / orders
    chosen = times.argsort()[:num].sort().values.tolist()
    members = torch.zeros(len(chosen), rows, cols, dtype=torch.bool)
    for mask, index in zip(members, chosen):
        top, bottom, left, right = rectangles[index]
        mask[top:bottom, left:right] = True
    return members.flatten(1)


def union_boxes(bboxes: Tensor, members: Tensor) -> Tensor:
    """Smallest boxes around the members of each region.

    Args:
        bboxes (Tensor): One box per tile, (K, 4) or, where the regions are of
            several images, (n, K, 4), absolute xyxy.
        members (Tensor): bool (n, K), at least one True in each row.

    Returns:
        Tensor: Shape (n, 4), absolute xyxy.
    """
    members = members.to(bboxes.device)[..., None]
    bboxes = bboxes.expand(len(members), -1, -1)
    low = bboxes[..., :2].masked_fill(~members, torch.inf).amin(1)
    high = bboxes[..., 2:].masked_fill(~members, -torch.inf).amax(1)
    return torch.cat([low, high], dim=1)


#: Which boxes an objective takes as those of tiles.
REGION_KINDS = ('tiles', 'proposals')


@dataclass
class Regions:
    """The pseudo regions that an objective took from the images of a branch.

    Args:
        rois (Tensor): Shape (R, 5): index of the image, then absolute xyxy
            pixels of the network input.
        image (Tensor): int64 (R,), the index of the image, on the host.
        members (Tensor): bool (R, K), on the host: which tiles of its image
            stand in each region.
        tags (Tensor, optional): int64 (R,), on the host: the one tag of its
            tiles that each region stands for; None: all of them.
    """

    rois: Tensor
    image: Tensor
    members: Tensor
    tags: Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.rois)

    @property
    def bboxes(self) -> Tensor:
        """Shape (R, 4), absolute xyxy pixels."""
        return self.rois[:, 1:]

    @property
    def composed(self) -> Tensor:
        """Boxes of the regions of several tiles, (m, 4)."""
        several = (self.members.sum(1) > 1).nonzero().flatten()
        return self.bboxes[several.to(self.rois.device)]


def check_tags(tags: Iterable[Iterable[int]], num_classes: int) -> None:
    """Refuse tags that are none of the classes of an objective.

    Args:
        tags (Iterable[Iterable[int]]): Those of each tile.
        num_classes (int): How many classes the objective has.

    Raises:
        ValueError: If there is one.
    """
    wrong = {
        int(tag)
        for of_tile in tags
        for tag in of_tile if not 0 <= tag < num_classes
    }
    if wrong:
        raise ValueError(
            f'tags: expected 0 to {num_classes - 1}, the classes of the '
            f"objective's vocabulary, got {sorted(wrong)[:5]}; give data set "
            'and objective the same vocabulary')


def places_of(counts: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """The image and the place in it, (R,) each, of so many rows per image.

    Args:
        counts (Sequence[int]): Rows of each image.
        like (Tensor): On the wanted device.
    """
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    place = torch.cat([torch.arange(count) for count in counts])
    image, place = upload(torch.stack([image, place]), like)
    return image, place


def as_rois(image: Tensor, boxes: Tensor) -> Tensor:
    """Images (R,) and boxes (R, 4) as RoIs (R, 5)."""
    return torch.cat([image[:, None].to(boxes), boxes], 1)


@dataclass
class Proposals:
    """Proposals of N images, best score first, padded with empty boxes.

    Args:
        boxes (Tensor): Shape (N, P, 4), absolute xyxy pixels.
        scores (Tensor): Shape (N, P); 0 where there is padding.
        counts (list[int]): How many each image has.
    """

    boxes: Tensor
    scores: Tensor
    counts: list[int]

    @classmethod
    def of_images(cls, proposals: Sequence[InstanceData]) -> 'Proposals':
        """From what a region reader proposes for each image."""
        return cls.of_rows(
            torch.cat([of.bboxes for of in proposals]),
            torch.cat([of.scores for of in proposals]),
            [len(of) for of in proposals])

    @classmethod
    def of_rows(cls, boxes: Tensor, scores: Tensor,
                counts: list[int]) -> 'Proposals':
        """From those of one image after another.

        Args:
            boxes (Tensor): Shape (R, 4), absolute xyxy pixels.
            scores (Tensor): Shape (R,).
            counts (list[int]): How many each image has.
        """
        # Not pad_sequence, which copies image by image.
        place = places_of(counts, boxes)
        size = len(counts), max(counts)
        return cls(
            boxes.new_zeros(*size, 4).index_put(place, boxes),
            scores.new_zeros(size).index_put(place, scores), counts)


@dataclass
class TileProposals:
    """Which proposals belong to which tile of their image.

    Args:
        proposals (Proposals): All of them.
        owner (Tensor): int64 (N, P), the tile that holds most of each.
        owns (Tensor): bool (N, P, K): which are the tile's.
        boxes (Tensor): Shape (N, P, 4), clamped to the tile that holds most
            of each.
    """

    proposals: Proposals
    owner: Tensor
    owns: Tensor
    boxes: Tensor

    def largest(self, tiles: Tensor) -> Tensor:
        """The largest likely object of each tile.

        Args:
            tiles (Tensor): Shape (N, K, 4).

        Returns:
            Tensor: Shape (N, K, 4): of the proposals of each tile, clamped to
            it, the largest; the tile's own box where it has none.
        """
        if self.boxes.shape[1] == 0:
            return tiles
        areas = (self.boxes[..., 2:] - self.boxes[..., :2]).clamp(min=0)
        areas = areas.prod(-1)[..., None] + 1
        largest = areas.masked_fill(~self.owns, 0).argmax(1)
        boxes = self.boxes.gather(1, largest[..., None].expand(-1, -1, 4))
        return torch.where(self.owns.any(1)[..., None], boxes, tiles)

    def best(self, values: Tensor, image: Tensor, tile: Tensor,
             tiles: Tensor) -> Tensor:
        """Of the proposals of given tiles, the one of the highest value.

        Args:
            values (Tensor): Shape (R, P), of the proposals of each one's
                image.
            image (Tensor): int64 (R,), the image of each.
            tile (Tensor): int64 (R,), the tile of each.
            tiles (Tensor): Shape (N, K, 4).

        Returns:
            Tensor: Shape (R, 4), clamped to the tile; the tile's own box
            where it has no proposal.
        """
        own = tiles[image, tile]
        if values.shape[1] == 0:
            return own  # argmax has nothing to choose from
        of_tile = self.owns[image, :, tile]
        best = values.masked_fill(~of_tile, -torch.inf).argmax(1)
        return torch.where(
            of_tile.any(1)[:, None], self.boxes[image, best], own)

    def likely(self, limits: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The proposals that matter most: those of tiles, then the best.

        Args:
            limits (Sequence[int]): How many of each image.

        Returns:
            tuple[Tensor, Tensor]: Index of the image and of the proposal of
            each, (Q,), best first within an image.
        """
        numbers = [min(n, k) for n, k in zip(self.proposals.counts, limits)]
        image, slot = places_of(numbers, self.owner)
        place = torch.arange(self.owner.shape[1], device=self.owner.device)
        # Kept ones in the order of their scores, the others behind them.
        rank = (place + ~self.owns.any(2) * len(place)).argsort(1)
        position = (rank.argsort(1) < upload(numbers, rank)[:, None])
        order = (place + ~position * len(place)).argsort(1)
        return image, order[image, slot]


class TileBatch:
    """The tiles of N images, padded to the K of the image with most.

    What the host knows, such as captions, tags and which region holds which
    tile, stays there until it is uploaded once. Work on the device is done
    for all images at a time.

    Args:
        data_samples (list[DetDataSample]): N packed mosaics.

    Attributes:
        boxes (Tensor): Shape (N, K, 4), absolute xyxy pixels of the network
            input; zeros where an image has fewer tiles.
        counts (list[int]): How many tiles each image has.
    """

    def __init__(self, data_samples: SampleList) -> None:
        self.data_samples = data_samples
        boxes = [get_box_tensor(s.gt_instances.bboxes) for s in data_samples]
        self.counts = [len(of_image) for of_image in boxes]
        self.boxes = pad_sequence(boxes, batch_first=True)

    @property
    def captions(self) -> list[list[str]]:
        """Captions of each tile, tiles of one image after another."""
        return [of for s in self.data_samples for of in s.captions]

    @property
    def image_keys(self) -> list[int]:
        """Key of the image in each tile, in the order of :attr:`captions`."""
        return [key for s in self.data_samples for key in s.image_keys]

    def is_tile(self) -> Tensor:
        """Which of the N x K places hold a tile: bool, on the host."""
        places = torch.arange(self.boxes.shape[1])
        return places < torch.tensor(self.counts)[:, None]

    def keys_of(self, image: Tensor, members: Tensor) -> Tensor:
        """The keys of the images in the tiles of regions.

        Args:
            image (Tensor): int64 (R,), the image of each region.
            members (Tensor): bool (R, K), at least one True in each row.

        Returns:
            Tensor: int64 (R, K), on the host; in the place of a tile that is
            none of the region's, its first one's key again.
        """
        found = [torch.tensor(s.image_keys) for s in self.data_samples]
        keys = pad_sequence(found, batch_first=True)[image]
        first = keys.gather(1, members.int().argmax(1, keepdim=True))
        return torch.where(members, keys, first)

    def has_tags(self) -> Tensor:
        """Whether each tile has a tag: bool (N, K), on the host."""
        found = torch.zeros(self.boxes.shape[:2], dtype=torch.bool)
        for of_image, sample in zip(found, self.data_samples):
            of_image[:len(sample.tags)] = torch.tensor(
                [len(tags) > 0 for tags in sample.tags])
        return found

    def check_tags(self, num_classes: int) -> None:
        """Raise a ValueError if a tag is none of so many classes."""
        for sample in self.data_samples:
            check_tags(sample.tags, num_classes)

    def each_tag(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, tile and class of every tag, (R,), on the host."""
        rows = [(image, tile, tag)
                for image, sample in enumerate(self.data_samples)
                for tile, tags in enumerate(sample.tags)
                for tag in sorted(set(map(int, tags)))]
        found = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)
        image, tile, tag = found.unbind(1)
        return image, tile, tag

    def members(self, tile: Tensor) -> Tensor:
        """Tiles (R,) as bool (R, K): which tile each region is in."""
        return F.one_hot(tile, self.boxes.shape[1]).bool()

    def compose(self, num: int) -> tuple[Tensor, Tensor]:
        """Every tile for itself, then rectangles of several, of each image.

        Args:
            num (int): Rectangles drawn per image.

        Returns:
            tuple[Tensor, Tensor]: Index of the image (R,) and bool (R, K) of
            its tiles, on the host.
        """
        width = self.boxes.shape[1]
        images: list[Tensor] = []
        members: list[Tensor] = []
        for sample, count in zip(self.data_samples, self.counts):
            alone = torch.eye(count, dtype=torch.bool)
            drawn = compose_tiles(sample.mosaic_grid, num)
            of_image = torch.cat([alone, drawn])
            members.append(F.pad(of_image, (0, width - count)))
            images.append(torch.full((len(of_image), ), len(images)))
        return torch.cat(images), torch.cat(members)

    def regions(self, boxes: Tensor, image: Tensor,
                members: Tensor) -> Regions:
        """Regions around the boxes of tiles.

        Args:
            boxes (Tensor): One per tile, (N, K, 4), absolute xyxy pixels.
            image (Tensor): int64 (R,), on the host.
            members (Tensor): bool (R, K), on the host, at least one True in
                each row.
        """
        index = upload(image, boxes)
        around = union_boxes(boxes[index], upload(members, boxes))
        return Regions(as_rois(index, around), image, members)

    def assign(self, proposals: Proposals, min_overlap: float,
               max_proposals: int) -> TileProposals:
        """Give each proposal to the tile that holds most of it.

        The share is the intersection over the proposal's own area
        (REFERENCE.md, section 2, tag objective).

        Args:
            proposals (Proposals): Of the N images.
            min_overlap (float): A proposal belongs to no tile unless a larger
                share of its own area lies in one.
            max_proposals (int): The most that one tile keeps, the best by
                score.
        """
        boxes = proposals.boxes
        share, owner = bbox_overlaps(boxes, self.boxes, mode='iof').max(2)
        tile = torch.arange(self.boxes.shape[1], device=boxes.device)
        owns = (owner[..., None] == tile) & (share > min_overlap)[..., None]
        owns &= owns.cumsum(1) <= max_proposals
        of_tile = self.boxes.gather(1, owner[..., None].expand(-1, -1, 4))
        low = torch.maximum(boxes[..., :2], of_tile[..., :2])
        high = torch.minimum(boxes[..., 2:], of_tile[..., 2:])
        # Beside all tiles there is nothing left, but no box of negative size.
        clamped = torch.cat([low, torch.maximum(low, high)], -1)
        return TileProposals(proposals, owner, owns, clamped)

    def tag_targets(self, regions: Regions, num_classes: int) -> Tensor:
        """Which region holds a tile with which tag: bool (R, C).

        Args:
            regions (Regions): R regions.
            num_classes (int): C, the number of classes that tags index.
        """
        of_tile = self.tag_table(num_classes).float()
        held = regions.members.float()[:, None] @ of_tile[regions.image]
        return upload(held[:, 0] > 0, self.boxes)

    def tag_table(self, num_classes: int) -> Tensor:
        """Which tile has which tag: bool (N, K, C), on the host."""
        table = torch.zeros(*self.boxes.shape[:2], num_classes).bool()
        for of_image, sample in zip(table, self.data_samples):
            for row, tags in zip(of_image, sample.tags):
                row[tags] = True
        return table
