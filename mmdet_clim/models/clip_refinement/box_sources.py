# Licensed under the Apache License, Version 2.0.
"""Where the boxes come from that a training on CLIP looks at."""
import math
from abc import ABCMeta, abstractmethod
from collections import defaultdict
from typing import Sequence

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.coco_annotations import read_detections
from mmdet_clim.registry import MODELS


class BoxSource(nn.Module, metaclass=ABCMeta):
    """Class-agnostic boxes of a training image."""

    @abstractmethod
    def forward(self, sample: DetDataSample) -> Tensor:
        """The boxes of one image.

        Args:
            sample (DetDataSample): With ``img_shape`` ((height, width) in
                pixels that the image fills of the network input).

        Returns:
            Tensor: (K, 4) float32 on the CPU, absolute xyxy pixels of the
            network input.
        """


@MODELS.register_module()
class GridBoxes(BoxSource):
    """The cells of a random grid, as CLIPSelf (arXiv 2310.01403) takes them.

    Args:
        max_rows (int): Rows are drawn from 1 to this.
        max_cols (int): Columns are drawn from 1 to this.

    Raises:
        ValueError: If one is below 1.
    """

    def __init__(self, max_rows: int = 6, max_cols: int = 6) -> None:
        super().__init__()
        check_range(1, max_rows=max_rows, max_cols=max_cols)
        self.max_rows, self.max_cols = max_rows, max_cols

    def forward(self, sample: DetDataSample) -> Tensor:
        height, width = sample.img_shape[:2]
        rows = int(torch.randint(self.max_rows, ())) + 1
        cols = int(torch.randint(self.max_cols, ())) + 1
        return torch.tensor([[
            c * width / cols, r * height / rows, (c + 1) * width / cols,
            (r + 1) * height / rows
        ] for r in range(rows) for c in range(cols)])


@MODELS.register_module()
class RandomBoxes(BoxSource):
    """Boxes of random place, size and aspect ratio.

    Args:
        num_boxes (int): Boxes per image.
        area (tuple[float, float]): Least and largest area, as a fraction of
            the image's.
        aspect_ratio (tuple[float, float]): Least and largest width / height.
            A box that would not fit is cut to the image's side.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        num_boxes: int = 20,
        area: Sequence[float] = (0.01, 0.5),
        aspect_ratio: Sequence[float] = (0.5, 2.0)
    ) -> None:
        super().__init__()
        check_range(1, num_boxes=num_boxes)
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError('area: expected 0 < least <= largest <= 1, got '
                             f'{area}')
        if not 0 < aspect_ratio[0] <= aspect_ratio[1]:
            raise ValueError('aspect_ratio: expected 0 < least <= largest, '
                             f'got {aspect_ratio}')
        self.num_boxes = num_boxes
        self.area = area
        self.aspect_ratio = aspect_ratio

    def forward(self, sample: DetDataSample) -> Tensor:
        height, width = sample.img_shape[:2]
        area, ratio, *place = torch.rand(4, self.num_boxes)
        least, largest = self.area
        area = (least + (largest - least) * area) * height * width
        low, high = map(math.log, self.aspect_ratio)
        ratio = (low + (high - low) * ratio).exp()
        extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1)
        room = torch.tensor([width, height], dtype=torch.float32)
        extent = torch.minimum(extent, room)
        corner = torch.stack(place, 1) * (room - extent)
        return torch.cat([corner, corner + extent], 1)


@MODELS.register_module()
class FileBoxes(BoxSource):
    """The best proposals of each image, from a file in COCO's result format.

    The file is a list of ``{"image_id", "bbox": [x, y, width, height],
    "score"}`` in pixels of the full image, such as mmdet's results of an RPN
    (``outfile_prefix`` of its metrics). An image that the file does not know
    has its whole self as its only box.

    Args:
        file (str): The file.
        num_boxes (int): At most so many per image, best first.

    Raises:
        ValueError: If the file holds no such list, an entry lacks a key or
            is no box, or ``num_boxes`` is below 1.
    """

    def __init__(self, file: str, num_boxes: int = 100) -> None:
        super().__init__()
        check_range(1, num_boxes=num_boxes)
        self._boxes = _best_boxes(file, read_detections(file), num_boxes)

    def forward(self, sample: DetDataSample) -> Tensor:
        height, width = sample.img_shape[:2]
        boxes = self._boxes.get(sample.img_id)
        if boxes is None:
            return torch.tensor([[0., 0., width, height]])
        full_height, full_width = sample.ori_shape[:2]
        scale = torch.tensor([width / full_width, height / full_height] * 2)
        boxes = boxes * scale
        if sample.get('flip', False):
            if sample.flip_direction != 'horizontal':
                raise ValueError('flip_direction: FileBoxes knows horizontal '
                                 f'flips, got {sample.flip_direction!r}')
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        return boxes


def _best_boxes(file: str, entries: Sequence[dict],
                num_boxes: int) -> dict[int, Tensor]:
    """(K, 4) xyxy boxes by image id, best first."""
    by_image: dict[int, list[dict]] = defaultdict(list)
    for number, entry in enumerate(entries):
        box = entry['bbox']
        if not min(box[2:]) > 0:
            raise ValueError(
                f'{file}: entry {number}: bbox is {box}, expected '
                'x, y and a positive width and height')
        by_image[entry['image_id']].append(entry)
    best = {}
    for image_id, found in by_image.items():
        found = sorted(found, key=lambda e: e['score'], reverse=True)
        boxes = torch.tensor([e['bbox'] for e in found[:num_boxes]],
                             dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        best[image_id] = boxes
    return best
