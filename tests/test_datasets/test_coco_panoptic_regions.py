# Licensed under the Apache License, Version 2.0.
import json

import cv2
import numpy as np
import pytest

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets import CocoPanopticRegionDataset, build_vocabulary
from mmdet_clim.datasets.coco_panoptic_regions import spoken_name
from mmdet_clim.datasets.transforms import LoadPanopticRegions


@pytest.mark.parametrize('name, spoken', [
    ('person', 'person'),
    ('wall-other-merged', 'wall'),
    ('wall-brick', 'wall brick'),
    ('mirror-stuff', 'mirror'),
    ('water-other', 'water'),
    ('hot dog', 'hot dog'),
])
def test_names_as_one_says_them(name, spoken):
    assert spoken_name(name) == spoken


def test_all_names_differ():
    words = build_vocabulary(
        dict(dataset='mmdet_clim.CocoPanopticRegionDataset'))
    assert len(words) == 133
    meta = CocoPanopticRegionDataset.METAINFO
    assert meta['thing_classes'] + meta['stuff_classes'] == words.names


@pytest.fixture
def panoptic(tmp_path):
    """An image of a person, a crowd, a sky and a segment of no pixel."""
    ids = np.zeros((20, 30), np.int64)
    ids[5:15, 2:12] = 70_000  # more than red and green hold
    ids[:3] = 300
    ids[16:, 20:] = 9
    colours = np.stack([ids // 65536, ids // 256 % 256, ids % 256], 2)
    (tmp_path / 'seg').mkdir()
    cv2.imwrite(str(tmp_path / 'seg/1.png'), colours.astype(np.uint8))
    cv2.imwrite(str(tmp_path / '1.jpg'), np.zeros((20, 30, 3), np.uint8))

    def segment(number, category, box, iscrowd=0):
        return dict(
            id=number,
            category_id=category,
            bbox=box,
            area=box[2] * box[3],
            iscrowd=iscrowd)

    content = dict(
        images=[dict(id=1, file_name='1.jpg', height=20, width=30)],
        categories=[
            # In another order than that of the classes.
            dict(id=187, name='sky-other-merged', isthing=0),
            dict(id=1, name='person', isthing=1)
        ],
        annotations=[
            dict(
                image_id=1,
                file_name='1.png',
                segments_info=[
                    segment(70_000, 1, [2, 5, 10, 10]),
                    segment(300, 187, [0, 0, 30, 3]),
                    segment(9, 1, [20, 16, 10, 4], iscrowd=1),
                    segment(10, 187, [0, 0, 2, 2]),
                ])
        ])
    (tmp_path / 'panoptic.json').write_text(json.dumps(content))
    return CocoPanopticRegionDataset(
        ann_file='panoptic.json',
        data_root=str(tmp_path),
        data_prefix=dict(img='', seg='seg/'),
        metainfo=dict(
            classes=('absent', 'person', 'sky'),
            thing_classes=('absent', 'person'),
            stuff_classes=('sky', )),
        test_mode=True,
        pipeline=[LoadPanopticRegions(num_things=2)])


def test_things_and_stuff_are_regions_and_crowds_are_not(panoptic):
    sample = panoptic[0]
    assert sample['gt_bboxes'].tensor.tolist() == [[2, 5, 12, 15],
                                                   [0, 0, 30, 3]]
    assert sample['gt_bboxes_labels'].tolist() == [1, 2]
    assert not sample['gt_ignore_flags'].any()
    masks = sample['gt_masks'].masks
    assert masks.shape == (2, 20, 30)
    assert masks.sum((1, 2)).tolist() == [100, 90]


def test_a_map_that_is_no_image(panoptic, tmp_path):
    (tmp_path / 'seg/1.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='img_path=.*seg.1.png'):
        panoptic[0]
