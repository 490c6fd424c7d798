# Licensed under the Apache License, Version 2.0.
"""Segments of a panoptic map as regions."""
from dataclasses import dataclass

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.image_files import read_image
from mmdet_clim.registry import TRANSFORMS


@TRANSFORMS.register_module()
@dataclass(eq=False)
class LoadPanopticRegions(BaseTransform):
    """Load every segment of a panoptic map with its box and mask.

    Things and stuff alike; mmdet's ``LoadPanopticAnnotations`` gives boxes
    of things only. Crowds are left out.

    Required Keys:

    - seg_map_path (a PNG whose colours are segment ids, R + 256 G + 65536 B)
    - segments_info (list of dict: id, category (class index), is_thing)
    - instances (used to tell a crowd from stuff)

    Added Keys:

    - gt_bboxes (:obj:`HorizontalBoxes` (R, 4), float32, absolute ``xyxy``
      pixels: the extent of the mask)
    - gt_bboxes_labels ((R,), int64), gt_ignore_flags ((R,), bool, False)
    - gt_masks (:obj:`BitmapMasks`, R masks)

    Args:
        num_things (int): Class indices below it are things; a segment of
            them that is not marked as a thing is a crowd.
        backend_args (dict, optional): MMEngine's file backend.

    Raises:
        UnreadableImageError: If the file is no image.
    """

    num_things: int = 80
    backend_args: dict | None = None

    def transform(self, results: dict) -> dict:
        """Load the regions of one image."""
        colours, _ = read_image(
            dict(img_path=results['seg_map_path']),
            backend_args=self.backend_args)
        blue, green, red = np.moveaxis(colours.astype(np.int64), 2, 0)
        ids = red + 256 * green + 65536 * blue
        boxes, labels, masks = [], [], []
        for segment in results['segments_info']:
            is_thing = segment['category'] < self.num_things
            if is_thing and not segment['is_thing']:
                continue
            mask = ids == segment['id']
            rows, cols = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            if not len(rows):
                continue
            boxes.append([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1])
            labels.append(segment['category'])
            masks.append(mask.astype(np.uint8))
        results['gt_bboxes'] = HorizontalBoxes(
            np.array(boxes, np.float32).reshape(-1, 4))
        results['gt_bboxes_labels'] = np.array(labels, np.int64)
        results['gt_ignore_flags'] = np.zeros(len(labels), bool)
        results['gt_masks'] = BitmapMasks(masks, *ids.shape)
        return results


@TRANSFORMS.register_module()
@dataclass(eq=False)
class FilterRegionsByArea(BaseTransform):
    """Leave out regions that are too small or too large to be classified.

    A region is as large as its box, in pixels of the image as it is here:
    behind ``Resize``, of the network's input.

    Required Keys:

    - gt_bboxes (:obj:`HorizontalBoxes` (R, 4))

    Modified Keys:

    - gt_bboxes, gt_bboxes_labels, gt_ignore_flags, gt_masks (where they are;
      of the same regions, in the same order)

    Args:
        min_area (float): Least area in square pixels.
        max_area (float): Largest area in square pixels.
        max_regions (int, optional): At most so many per image: the first.

    Raises:
        ValueError: If an argument is out of its range.
    """

    KEYS = ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks')

    min_area: float = 0.0
    max_area: float = float('inf')
    max_regions: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= self.max_area:
            raise ValueError('min_area, max_area: expected 0 <= min_area <= '
                             f'max_area, got {self.min_area}, {self.max_area}')
        check_range(1, max_regions=self.max_regions)

    def transform(self, results: dict) -> dict:
        """Filter the regions of one image."""
        areas = results['gt_bboxes'].areas.numpy()
        kept = ((areas >= self.min_area) & (areas <= self.max_area)).nonzero()
        index = kept[0][:self.max_regions]
        for key in self.KEYS:
            if key in results:
                results[key] = results[key][index]
        return results
