# Licensed under the Apache License, Version 2.0.
"""Which annotated regions are classified."""
import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from mmdet_clim.datasets.transforms import FilterRegionsByArea
from mmdet_clim.registry import TRANSFORMS

#: 63 x 65 = 4095, 64 x 64, 32 x 128, 1024 x 1024, 1025 x 1024, nothing.
SIZES = [(63, 65), (64, 64), (32, 128), (1024, 1024), (1025, 1024), (0, 9)]


def sample(sizes=SIZES):
    boxes = np.array([[7, 5, 7 + w, 5 + h] for w, h in sizes],
                     np.float32).reshape(-1, 4)
    masks = np.arange(len(sizes), dtype=np.uint8)[:, None, None]
    return dict(
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.arange(len(sizes)),
        gt_ignore_flags=np.zeros(len(sizes), bool),
        gt_masks=BitmapMasks(np.tile(masks, (1, 4, 6)), 4, 6))


@pytest.mark.parametrize('most, kept', [(None, [1, 2, 3]), (2, [1, 2])])
def test_areas_from_64_to_1024_squared(most, kept):
    transform = TRANSFORMS.build(
        dict(
            type='mmdet_clim.FilterRegionsByArea',
            min_area=64**2,
            max_area=1024**2,
            max_regions=most))
    found = transform(sample())
    assert found['gt_bboxes_labels'].tolist() == kept
    assert found['gt_masks'].masks[:, 0, 0].tolist() == kept
    assert len(found['gt_ignore_flags']) == len(found['gt_bboxes'])
    assert (found['gt_bboxes'].tensor[:, 2:].tolist() == [
        [7 + SIZES[i][0], 5 + SIZES[i][1]] for i in kept
    ])


def test_nothing_may_be_left_and_masks_may_be_absent():
    regions = sample()
    del regions['gt_masks']
    found = FilterRegionsByArea(min_area=1e9)(regions)
    assert found['gt_bboxes'].tensor.shape == (0, 4)
    assert found['gt_bboxes_labels'].shape == (0, )
    with_masks = FilterRegionsByArea(min_area=1e9)(sample())
    assert with_masks['gt_masks'].masks.shape == (0, 4, 6)
    assert len(FilterRegionsByArea()(sample([]))['gt_bboxes']) == 0
    assert len(FilterRegionsByArea()(sample())['gt_bboxes']) == len(SIZES)


@pytest.mark.parametrize('arguments', [
    dict(min_area=-1),
    dict(min_area=5, max_area=4),
    dict(max_regions=0),
])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        FilterRegionsByArea(**arguments)
