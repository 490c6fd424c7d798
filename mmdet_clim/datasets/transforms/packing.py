# Licensed under the Apache License, Version 2.0.
"""Packing of regions with their texts into the model's input."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes
from mmengine.structures import InstanceData

from mmdet_clim.registry import TRANSFORMS

# What there is one of per tile, beside the boxes.
TILE_KEYS = ('captions', 'tags', 'image_ids', 'image_keys')


@TRANSFORMS.register_module()
@dataclass(eq=False)
class PackRegionTextInputs(BaseTransform):
    """Pack pseudo regions and their texts for ``CLIMDetector``.

    A mosaic has one region per tile. A captioned image that no
    :class:`MosaicCLIM` has tiled is packed as a 1x1 mosaic: one region that
    is the whole image.

    Required Keys:

    - img ((H, W, 3), uint8)
    - img_id (for a plain image)
    - image_key (for a plain image, optional: which image it is in all
      sources; ``img_id`` where it is missing)
    - captions (a mosaic: list per tile of list[str]; else list[str])
    - tags (a mosaic: list per tile of list[int]; else list[int], optional)
    - gt_bboxes, image_ids, image_keys, mosaic_grid (of a mosaic)

    Returned Keys:

    - inputs (uint8 tensor (3, H, W))
    - data_samples (:obj:`DetDataSample`): ``gt_instances.bboxes`` (K, 4)
      float32, absolute ``xyxy`` pixels of ``inputs``; ``gt_instances.labels``
      (K,) int64 zeros; metainfo ``branch``, ``captions``, ``tags``,
      ``image_ids``, ``image_keys``, ``mosaic_grid`` and ``meta_keys``.

    Args:
        branch (str): The branch of the model that the sample belongs to.
        meta_keys (Sequence[str]): Further keys to keep where present.
    """

    branch: str = 'mosaic'
    meta_keys: Sequence[str] = ('img_id', 'img_path', 'ori_shape', 'img_shape',
                                'scale_factor', 'flip', 'flip_direction')

    def __post_init__(self) -> None:
        if not isinstance(self.branch, str) or not self.branch:
            raise ValueError(
                f'branch: expected a non-empty string, got {self.branch!r}')

    def transform(self, results: dict) -> dict:
        """Pack one sample.

        Raises:
            ValueError: If boxes, captions, tags, ids and the grid do not
                count the same tiles.
        """
        image = results['img']
        if 'mosaic_grid' in results:
            boxes = results['gt_bboxes']
            boxes = boxes.tensor if isinstance(boxes, BaseBoxes) else boxes
            boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            texts = {key: results[key] for key in (*TILE_KEYS, 'mosaic_grid')}
        else:
            boxes = torch.tensor([[0., 0., image.shape[1], image.shape[0]]])
            texts = dict(
                captions=[results['captions']],
                tags=[results.get('tags', [])],
                image_ids=[results['img_id']],
                image_keys=[results.get('image_key', results['img_id'])],
                mosaic_grid=(1, 1))
        self._check_counts(boxes, texts)
        kept = {k: results[k] for k in self.meta_keys if k in results}
        data_sample = DetDataSample(metainfo={
            **kept,
            **texts, 'branch': self.branch
        })
        data_sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.int64))
        inputs = torch.from_numpy(np.ascontiguousarray(image))
        return dict(
            inputs=inputs.permute(2, 0, 1).contiguous(),
            data_samples=data_sample)

    @staticmethod
    def _check_counts(boxes: torch.Tensor, texts: dict) -> None:
        """Raise unless every list has one entry per tile."""
        rows, cols = texts['mosaic_grid']
        counts = {k: len(texts[k]) for k in TILE_KEYS}
        counts['gt_bboxes'] = len(boxes)
        wrong = {k: n for k, n in counts.items() if n != rows * cols}
        if wrong:
            raise ValueError(
                f'mosaic_grid={(rows, cols)}: expected {rows * cols} entries '
                f'in each of {sorted(counts)}, got {wrong}')
