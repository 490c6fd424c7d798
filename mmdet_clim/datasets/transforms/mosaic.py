# Licensed under the Apache License, Version 2.0.
"""The contrastive language-image mosaic: images in, pseudo regions out."""
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, cast

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.structures.bbox import HorizontalBoxes

from mmdet_clim.checks import check_choice, check_range, check_size
from mmdet_clim.datasets.draws import Draw, Drawing, current_drawing
from mmdet_clim.datasets.image_files import read_image
from mmdet_clim.datasets.images import UnreadableImageError
from mmdet_clim.datasets.unreadable import UnreadableImages
from mmdet_clim.registry import TRANSFORMS

from .shared_weights import SharedWeights, Weights, checked_weights

# What the cache of one worker holds by default. The published recipe keeps
# 1024 images, 350 MiB; this leaves 4 MiB of 100 for everything else.
CACHE_BYTES = 96 * 2**20
MAX_CACHE_SIZE = 1024
ALIGNMENTS = ('center', 'published', 'cell_center', 'top_left')
PARTNERS = ('distinct', 'others')


class Tile(NamedTuple):
    """A captioned image that waits for its place in a mosaic.

    ``image`` is (H, W, 3) uint8 BGR. It is None while it is still a file,
    then ``sample`` says where; and in the cache, which keeps ``ready``: by
    (rows, cols), the image at the size that it has in a mosaic of that grid,
    or nearest to it.
    """

    image: np.ndarray | None
    captions: Sequence[str]
    tags: Sequence[int]
    image_id: int
    image_key: int
    path: str | None
    sample: dict | None = None
    ready: dict[tuple[int, int], np.ndarray] = {}


#: A draw; or where there is none, the number of the sample.
Place = Draw | tuple[int]


@TRANSFORMS.register_module()
class MosaicCLIM(BaseTransform):
    r"""Tile captioned images into one mosaic of pseudo regions.

    ::

                  rows x cols cells of out_size, align='center'
              +------------------+------------------+
              |      pad_val     |                  |
              |     +------------+-------------+    |
              |     |   tile 0   |   tile 1    |    |
              |     |            +-------------+    |
              +-----+------------+------------------+  middle line
              |      +-----------+--------+         |
              |      |  tile 2   | tile 3 |         |
              |      +-----------+        |         |
              |                  +--------+         |
              +------------------+------------------+
                             middle line

    Each image keeps its ratio and is resized, straight into its place, to
    the largest size that fits a cell. With ``align='center'`` it hugs the
    side of its cell that faces the middle line of the mosaic, and is centred
    in a cell that the middle line crosses (odd grids). ``align='published'``
    is the same for two rows or columns. Of three, the middle column lies
    anywhere in its cells, and the middle row hugs up or down. Of four and
    more, columns hug in pairs, 0 with 1 and 2 with 3, and each row hugs up or
    down (REFERENCE.md, section 1). Where the grid does not divide
    ``out_size``, column ``c`` of ``n`` spans ``[c * width // n, (c + 1) *
    width // n)``, and all images fit the smallest cell.

    Every sample leaves as a mosaic, also the first. Its partners come from

    - ``mix_results``, if the sample has them: with mmdet's
      ``MultiImageMixDataset``, which calls :meth:`get_indexes`. Samples that
      have no ``img`` yet, only ``img_path``, are decoded at the size that
      their cell asks for: the fastest way where every image shall be new;
    - or else a cache of the last ``cache_size`` samples of this worker, the
      present one among them. With ``partners='distinct'`` they differ from
      each other as soon as the cache holds enough; with
      ``partners='others'``, as published, each is drawn from all but the
      present sample. The cache keeps each image once per size of cell, so
      that a partner is copied into a mosaic and not resized again and again.
      Which samples these are follows from the sampler
      (``MultiSourceSampler``): a worker that was just started, as of a
      resumed run, loads those that it draws as partners again.

    ``grid_weights`` may be set while worker processes run: they see it with
    their next sample. :meth:`follow_schedule` changes them at given
    iterations instead, whatever workers have made ahead. Until there have
    been the partners of the largest grid, a worker keeps to the weights that
    the transform was built with.

    Required Keys:

    - img ((H, W, 3), uint8), or img_path (see ``LoadImageText``)
    - img_id (int)
    - image_key (int, optional: which image it is in all sources; ``img_id``
      where it is missing)
    - captions (list[str])
    - tags (list[int], optional)
    - mix_results (list[dict], optional)

    Returned Keys, and no others:

    - img ((H, W, 3), uint8), img_shape, ori_shape ((H, W) of the mosaic)
    - gt_bboxes (:obj:`HorizontalBoxes` (K, 4), float32, absolute ``xyxy``
      pixels): the visible area of each tile, row by row
    - gt_bboxes_labels ((K,), int64, zeros), gt_ignore_flags ((K,), bool)
    - captions (list per tile of list[str]), tags (list per tile of list[int])
    - image_ids, image_keys (list[int] per tile), mosaic_grid ((rows, cols))
    - img_id, img_path (of the first tile), scale_factor ((1.0, 1.0)),
      flip (False), flip_direction (None)

    Args:
        grids (Sequence[tuple[int, int]]): (rows, cols) to choose from.
        grid_weights (Sequence[float], optional): Their chances, in any unit.
            Equal if None. ``GridScheduleHook`` changes them in training; a
            grid of a later phase starts with 0.
        tile_size (tuple[int, int]): (width, height) in pixels that images
            are shrunk into before the cache keeps them, at this size or
            smaller. Larger cells enlarge them.
        out_size (tuple[int, int]): (width, height) of the mosaic in pixels.
        align (str): One of 'center', 'published', 'cell_center' and
            'top_left'.
        pad_val (int): The value of pixels that no image covers.
        cache_size (int, optional): Images in the cache of a worker. If None,
            as many as fit 96 MiB when each fills ``tile_size``, at most
            1024: 123 for the default grids and sizes.
        prob (float): The chance of a mosaic of ``grids``. Other samples
            leave as a 1x1 mosaic.
        partners (str): 'distinct' or 'others', see above.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self,
                 grids: Sequence[tuple[int, int]] = ((2, 2), (3, 3), (4, 4)),
                 grid_weights: Sequence[float] | None = None,
                 tile_size: tuple[int, int] = (400, 400),
                 out_size: tuple[int, int] = (800, 800),
                 align: str = 'center',
                 pad_val: int = 114,
                 cache_size: int | None = None,
                 prob: float = 1.0,
                 partners: str = 'distinct') -> None:
        if not grids or any(len(g) != 2 or min(g) < 1 for g in grids):
            raise ValueError('grids: expected (rows, cols) of at least 1, got '
                             f'{grids}')
        chances = checked_weights(grid_weights, len(grids))
        check_size(tile_size=tile_size, out_size=out_size)
        if (out_size[0] < max(cols for _, cols in grids)
                or out_size[1] < max(rows for rows, _ in grids)):
            raise ValueError(f'out_size: expected a pixel for each cell of '
                             f'{grids}, got {out_size}')
        check_choice(ALIGNMENTS, align=align)
        check_choice(PARTNERS, partners=partners)
        check_range(0, 255, pad_val=pad_val)
        check_range(1, cache_size=cache_size)
        check_range(0, 1, prob=prob)
        self.grids = tuple((int(rows), int(cols)) for rows, cols in grids)
        self.initial_grid_weights = chances
        self._shared_weights = SharedWeights(chances)
        self.tile_size = tile_size[0], tile_size[1]
        self.out_size = out_size[0], out_size[1]
        self.align = align
        self.partners = partners
        self.pad_val = pad_val
        # By grid, the room that the cache shrinks an image into.
        self._rooms = {grid: self._room_of(grid) for grid in self.grids}
        self.cache_size = cache_size or self._default_cache_size()
        self.prob = prob
        self.unreadable = UnreadableImages(type(self).__name__)
        self._begins: list[int] = []
        self._phases: list[np.ndarray] = []
        # By the place of the draw; None where another mosaic had it.
        self._cached_tiles: dict[tuple, Tile | None] = {}
        # The places of the samples that come without a draw.
        self._own_places: deque[tuple] = deque(maxlen=self.cache_size)

    @property
    def grid_weights(self) -> np.ndarray:
        """The chances of ``grids``, the same in all worker processes."""
        return self._shared_weights.read()

    @grid_weights.setter
    def grid_weights(self, weights: Weights) -> None:
        self._shared_weights.write(checked_weights(weights, len(self.grids)))

    def follow_schedule(self, begins: Sequence[int],
                        weights: Sequence[Weights]) -> None:
        """Change the chances of grids at given iterations.

        It holds for samples whose iteration is known, and in processes that
        are started after it.

        Args:
            begins (Sequence[int]): The first iterations of the phases,
                ascending.
            weights (Sequence[Sequence[float]]): Chances before the first
                phase, and of each.
        """
        self._begins = list(begins)
        self._phases = [checked_weights(w, len(self.grids)) for w in weights]

    @property
    def cache_bytes(self) -> int:
        """Bytes of the images in the cache of this process."""
        return sum(image.nbytes for tile in self._cached_tiles.values()
                   if tile is not None
                   # One array may serve several grids.
                   for image in {id(i): i
                                 for i in tile.ready.values()}.values())

    def _default_cache_size(self) -> int:
        """Images that fill ``tile_size`` and fit ``CACHE_BYTES``."""
        sizes = {fit_size(self.tile_size, r) for r in self._rooms.values()}
        image_bytes = sum(3 * width * height for width, height in sizes)
        return min(max(CACHE_BYTES // image_bytes, 1), MAX_CACHE_SIZE)

    def _cell_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the smallest cell of a grid."""
        return self.out_size[0] // grid[1], self.out_size[1] // grid[0]

    def _room_of(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(width, height) that an image is shrunk into for a grid."""
        width, height = self._cell_size(grid)
        return min(width, self.tile_size[0]), min(height, self.tile_size[1])

    @cache_randomness
    def _random_mosaic(self) -> bool:
        """Whether this sample becomes a mosaic of more than itself."""
        return self.prob >= 1 or np.random.rand() < self.prob

    def _weights_of(self, available: int) -> np.ndarray:
        """The chances of grids whose partners come from the cache.

        Args:
            available (int): Samples that can be partners.
        """
        largest = max(rows * cols for rows, cols in self.grids)
        if available < min(largest - 1, self.cache_size):
            return self.initial_grid_weights
        drawing = current_drawing()
        if drawing is None or not self._phases:
            return self.grid_weights
        return self._phases[bisect_right(self._begins, drawing.draw.iteration)]

    @cache_randomness
    def _random_grid(self, weights: np.ndarray) -> tuple[int, int]:
        """One of the grids, by chances in any unit."""
        steps = weights.cumsum()
        chosen = np.searchsorted(
            steps, np.random.rand() * steps[-1], side='right')
        return self.grids[chosen]

    @cache_randomness
    def _random_partners(self, count: int, available: int) -> list[int]:
        """Indices of partners among the cached, the last being the present.

        Different ones where there are enough, or any but the present one,
        unless it is alone.
        """
        if self.partners == 'others':
            return np.random.randint(0, max(available - 1, 1), count).tolist()
        if available < count:
            return np.random.randint(0, available, count).tolist()
        return np.random.permutation(available)[:count].tolist()

    @cache_randomness
    def _random_shares(self, rows: int) -> list[tuple[float, float]]:
        """Where the images of each row lie if ``align`` leaves it to chance.

        Returns:
            list[tuple[float, float]]: Shares of the free pixels that are left
            of a tile, in [0, 1), and above it, 0 or 1.
        """
        return [(np.random.rand(), np.random.randint(2)) for _ in range(rows)]

    def get_indexes(self, dataset) -> list[int]:
        """Draw partners for mmdet's ``MultiImageMixDataset``.

        Returns:
            list[int]: One index less than the tiles of a random grid;
            none for a sample that stays alone.
        """
        if not self._random_mosaic():
            return []
        rows, cols = self._random_grid(self.grid_weights)
        return np.random.randint(0, len(dataset), rows * cols - 1).tolist()

    def transform(self, results: dict) -> dict:
        """Make a mosaic.

        Raises:
            KeyError: If a required key is missing.
            ValueError: If an image is not (H, W, 3) uint8 or no grid has
                ``len(mix_results) + 1`` tiles.
            UnreadableImageError: If not one image of the mosaic that is
                still a file can be read.
        """
        newest = self._make_tile(results)
        if 'mix_results' in results:
            tiles = [newest, *map(self._make_tile, results['mix_results'])]
            grid = self._grid_of(len(tiles))
        else:
            newest = self._ready(newest)
            recent = self._remember(newest)
            grid = (1, 1)
            if recent and self._random_mosaic():
                grid = self._random_grid(self._weights_of(len(recent)))
            partners = self._random_partners(grid[0] * grid[1] - 1,
                                             len(recent))
            tiles = [newest, *(self._partner(recent, i) for i in partners)]
        image, boxes, tiles = self._draw(tiles, grid)
        shape = image.shape[:2]
        return dict(
            img=image,
            img_shape=shape,
            ori_shape=shape,
            gt_bboxes=HorizontalBoxes(torch.from_numpy(boxes), clone=False),
            gt_bboxes_labels=np.zeros(len(tiles), dtype=np.int64),
            gt_ignore_flags=np.zeros(len(tiles), dtype=bool),
            captions=[list(tile.captions) for tile in tiles],
            tags=[list(tile.tags) for tile in tiles],
            image_ids=[tile.image_id for tile in tiles],
            image_keys=[tile.image_key for tile in tiles],
            mosaic_grid=grid,
            img_id=tiles[0].image_id,
            img_path=tiles[0].path,
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None)

    def _make_tile(self, results: dict) -> Tile:
        """Check a captioned image and keep what a mosaic needs of it."""
        for key in ('captions', 'img_id'):
            if key not in results:
                raise KeyError(
                    f'{type(self).__name__}: expected key {key!r} in the '
                    f'sample, got {sorted(results)}')
        image = results.get('img')
        if image is None and 'img_path' not in results:
            raise KeyError(f"{type(self).__name__}: expected key 'img' or "
                           f"'img_path' in the sample, got {sorted(results)}")
        if image is not None and (image.ndim != 3 or image.shape[2] != 3
                                  or image.dtype != np.uint8):
            raise ValueError(f"key 'img': expected (H, W, 3) uint8, got "
                             f'{image.shape} {image.dtype}')
        return Tile(image, results['captions'], results.get('tags', ()),
                    results['img_id'],
                    results.get('image_key', results['img_id']),
                    results.get('img_path'),
                    results if image is None else None)

    def _grid_of(self, tiles: int) -> tuple[int, int]:
        """A grid of exactly so many tiles."""
        fits = np.array([rows * cols == tiles for rows, cols in self.grids])
        if fits.any():
            weights = self.grid_weights * fits
            # The weights may have changed since the partners were drawn.
            return self._random_grid(weights if weights.any() else fits)
        if tiles == 1:
            return 1, 1
        counts = sorted({rows * cols for rows, cols in self.grids})
        raise ValueError(
            f"key 'mix_results': expected one less than {counts} samples, "
            f'for grids {self.grids}, got {tiles - 1}')

    def _ready(self, tile: Tile) -> Tile:
        """A tile with its image at full size and as mosaics use it."""
        image = tile.image
        if image is None:
            # No tile is larger.
            image = read_image(cast(dict, tile.sample), self.out_size)[0]
        size = image.shape[1], image.shape[0]
        by_size: dict[tuple[int, int], np.ndarray] = {}
        base = shrink(image, fit_size(size, self.tile_size))
        ready = {}
        for grid, room in self._rooms.items():
            fitted = fit_size(size, room)
            if fitted not in by_size:
                by_size[fitted] = shrink(base, fitted)
            ready[grid] = by_size[fitted]
        return tile._replace(image=image, sample=None, ready=ready)

    def _remember(self, tile: Tile) -> Sequence[Place]:
        """Put an image into the cache.

        Returns:
            list: The draws that can be partners, or their places, oldest
            first; none where the sample is made for the cache alone.
        """
        kept = tile._replace(image=None)
        drawing = current_drawing()
        if drawing is None:
            last = self._own_places[-1][0] if self._own_places else -1
            self._own_places.append((last + 1, ))
            recent: Sequence[Place] = list(self._own_places)
        elif drawing.keeper is not None:
            if drawing.keeper is self:
                drawing.kept = kept
            return []
        else:
            recent = drawing.window(self.cache_size)
        self._cached_tiles[_place(recent[-1])] = kept
        if len(self._cached_tiles) > self.cache_size:
            oldest = _place(recent[0])
            for place in [p for p in self._cached_tiles if p < oldest]:
                del self._cached_tiles[place]
        return recent

    def _partner(self, recent: Sequence[Place], number: int) -> Tile:
        """One of the recent images, the next where that was none of ours."""
        # Of others, the present one comes last.
        others = len(recent) - (self.partners == 'others' and len(recent) > 1)
        numbers = [(number + step) % others for step in range(others)]
        for step in numbers + [len(recent) - 1]:
            draw = recent[step]
            place = _place(draw)
            if place not in self._cached_tiles:
                # Not of this process: it was just started.
                self._cached_tiles[place] = cast(Drawing,
                                                 current_drawing()).recall(
                                                     cast(Draw, draw), self)
            tile = self._cached_tiles[place]
            if tile is not None:
                return tile
        raise RuntimeError('the present image is always in the cache')

    def _draw(
            self, tiles: Sequence[Tile],
            grid: tuple[int,
                        int]) -> tuple[np.ndarray, np.ndarray, list[Tile]]:
        """Put every tile into its cell.

        Returns:
            tuple: The mosaic (H, W, 3); boxes (K, 4) float32 ``xyxy``; and
            the tiles, unreadable ones replaced.
        """
        width, height = self.out_size
        rows, cols = grid
        cell = self._cell_size(grid)
        mosaic: np.ndarray = np.full((height, width, 3),
                                     self.pad_val,
                                     dtype=np.uint8)
        boxes: np.ndarray = np.empty((len(tiles), 4), dtype=np.float32)
        tiles = list(tiles)
        shares = [(0., 0)] * rows
        if self.align == 'published':
            shares = self._random_shares(rows)
        for number in range(len(tiles)):
            tiles[number] = self._loaded(tiles, number, cell)
            image = self._best_source(tiles[number], grid)
            fitted = fit_size(image.shape[1::-1], cell)
            row, col = divmod(number, cols)
            left = col * width // cols
            top = row * height // rows
            room = (col + 1) * width // cols - left
            left += self._shift_right(col, cols, room - fitted[0],
                                      shares[row][0])
            room = (row + 1) * height // rows - top
            top += self._shift_down(row, rows, room - fitted[1],
                                    shares[row][1])
            right, bottom = left + fitted[0], top + fitted[1]
            place = mosaic[top:bottom, left:right]
            if place.shape == image.shape:
                place[...] = image
            else:
                cv2.resize(
                    image, fitted, dst=place, interpolation=cv2.INTER_LINEAR)
            boxes[number] = left, top, right, bottom
        return mosaic, boxes, tiles

    def _best_source(self, tile: Tile, grid: tuple[int, int]) -> np.ndarray:
        """The smallest image of a tile that serves a grid."""
        fills_cell = self._cell_size(grid) == self._rooms.get(grid)
        image = cast(np.ndarray, tile.image)
        if tile.image is None or fills_cell:
            return tile.ready.get(grid, image)
        return image

    def _loaded(self, tiles: list[Tile], number: int,
                cell: tuple[int, int]) -> Tile:
        """A tile with its image, or the next one that can be read."""
        reason = None
        for step in range(len(tiles)):
            tile = tiles[(number + step) % len(tiles)]
            if tile.sample is None:
                return tile
            try:
                image = read_image(tile.sample, cell)[0]
                return tile._replace(image=image, sample=None)
            except UnreadableImageError as error:
                reason = error
                self.unreadable.add(str(error))
        raise UnreadableImageError(
            f'none of the {len(tiles)} images of a mosaic can be read, the '
            f'last: {reason}')

    def _shift_right(self, col: int, cols: int, free: int,
                     share: float) -> int:
        """Pixels between the left side of a cell and its image.

        Args:
            col, cols: The cell's column, and how many there are.
            free: Pixels of the cell's width that the image leaves free.
            share: Which share of those is left of it if chance decides.
        """
        if self.align != 'published' or cols < 3:
            return self._shift(col, cols, free)
        if col == (1 if cols == 3 else cols - 1) and cols % 2:
            return int(share * (free + 1))
        hugs_left = col % 2 == 1 or cols == 3 and col == 2
        return 0 if hugs_left else free

    def _shift_down(self, row: int, rows: int, free: int, share: int) -> int:
        """Pixels between the top of a cell and its image.

        Args:
            row, rows, free, share: As of :meth:`_shift_right`.
        """
        if self.align != 'published' or rows < 3 or rows == 3 and row != 1:
            return self._shift(row, rows, free)
        return share * free

    def _shift(self, index: int, count: int, free: int) -> int:
        """Pixels between the start of a cell and its image on one axis.

        Args:
            index, count: The cell and the number of cells on the axis.
            free: Pixels of the cell that the image leaves free.
        """
        if self.align == 'top_left':
            return 0
        if self.align == 'cell_center' or 2 * index + 1 == count:
            return free // 2
        return free if 2 * index + 1 < count else 0

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(grids={self.grids}, '
                f'grid_weights={self.grid_weights.tolist()}, '
                f'tile_size={self.tile_size}, out_size={self.out_size}, '
                f'align={self.align!r}, pad_val={self.pad_val}, '
                f'cache_size={self.cache_size}, prob={self.prob}, '
                f'partners={self.partners!r})')


def _place(draw: Place) -> tuple:
    """What a cached image is found by."""
    return draw.place if isinstance(draw, Draw) else draw


def fit_size(size: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same ratio that fits, at least one pixel.

    Args:
        size, room: (width, height) in pixels.

    Returns:
        tuple[int, int]: (width, height), rounded to whole pixels.
    """
    factor = min(room[0] / size[0], room[1] / size[1])
    return (min(max(int(size[0] * factor + 0.5), 1),
                room[0]), min(max(int(size[1] * factor + 0.5), 1), room[1]))


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image of at most ``size`` (width, height) that owns its memory.

    Smaller images are not enlarged. A crop or a flip of a larger image is
    copied: a view would keep all of that alive.
    """
    if size[0] < image.shape[1] or size[1] < image.shape[0]:
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if image.base is not None or not image.flags.c_contiguous:
        return image.copy()
    return image
