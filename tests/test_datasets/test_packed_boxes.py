# Licensed under the Apache License, Version 2.0.
"""Packed annotations, against mmdet's own data set of the same file."""
import json
import pickle
import random

import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from mmdet_clim.datasets import CheckedCocoDataset
from mmdet_clim.datasets.draws import image_orientations

CLASSES = ('cow', 'dog', 'cat')


@pytest.fixture(params=['categories first', 'categories last'])
def file(request, tmp_path):
    """40 images, a few of them empty or small; annotations of any order."""
    draw = random.Random(0)
    images = [
        dict(
            id=7 * i,
            file_name=f'{i}.jpg',
            width=draw.choice([20, 50, 90]),
            height=40,
            license=1) for i in draw.sample(range(100), 40)
    ]
    annotations = [
        dict(
            id=i,
            image_id=image['id'],
            category_id=draw.choice([3, 5, 8, 9]),
            bbox=[1, 2.5, 10, draw.choice([.5, 5, 7.25])],
            area=50,
            iscrowd=int(draw.random() < .1),
            segmentation=[[1, 2.5, 11, 2.5, 11, 7.5]])
        for i, image in enumerate(draw.choices(images[:30], k=150))
    ]
    draw.shuffle(annotations)
    parts = dict(
        info=dict(year=2026),
        licenses=[dict(id=1)],
        categories=[
            dict(id=i, name=n)
            for i, n in zip((3, 5, 8, 9), ('cow', 'dog', 'cat', 'other'))
        ],
        images=images,
        annotations=annotations)
    if request.param == 'categories last':
        parts = dict(reversed(parts.items()))
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(parts))
    return str(path)


def infos(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def by_id(samples):
    """Samples without what depends on the order of the images."""
    found = {}
    for sample in samples:
        instances = sorted(sample['instances'], key=repr)
        found[sample['img_id']] = dict(
            sample, instances=instances, sample_idx=None)
    return found


@pytest.mark.parametrize('wanted', [
    None,
    dict(filter_empty_gt=True),
    dict(min_size=32),
    dict(filter_empty_gt=True, min_size=32)
])
@pytest.mark.parametrize('test_mode', [False, True])
def test_samples_are_mmdets(file, wanted, test_mode):
    options = dict(
        ann_file=file,
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img='x'),
        filter_cfg=wanted,
        test_mode=test_mode)
    ours, theirs = CheckedCocoDataset(**options), CocoDataset(**options)
    assert by_id(infos(ours)) == by_id(infos(theirs))
    assert len(ours) == len(theirs) >= 10
    assert next(image_orientations(ours)).tolist() == [
        i['height'] > i['width'] for i in infos(ours)
    ]


def test_parts_and_copies(file):
    dataset = CheckedCocoDataset(
        ann_file=file,
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img='x'),
        filter_cfg=dict(filter_empty_gt=True))
    whole = infos(dataset)
    copy = pickle.loads(pickle.dumps(dataset))
    assert infos(copy) == whole
    for indices, kept in ((3, whole[:3]), (-2, whole[-2:]),
                          ([4, 1], [whole[4], whole[1]])):
        found = infos(dataset.get_subset(indices))
        assert [dict(i, sample_idx=0)
                for i in found] == [dict(i, sample_idx=0) for i in kept]
    assert dataset.get_data_info(-1)['sample_idx'] == len(whole) - 1
    # A sample is the caller's own.
    dataset.get_data_info(0)['instances'].clear()
    assert dataset.get_data_info(0) == whole[0]


def test_what_stays_is_little_more_than_the_numbers(file):
    """Bytes of an annotation with its polygon, far below its objects."""
    dataset = CheckedCocoDataset(
        ann_file=file,
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img='x'))
    packed = dataset.data_list
    assert len(pickle.dumps(packed)) < 150 * 160 + 40 * 60 + 2000
    assert np.bincount(packed.image_of).sum() == 150


def test_proposals_are_refused(file):
    with pytest.raises(ValueError, match='proposal_file'):
        CheckedCocoDataset(
            ann_file=file,
            metainfo=dict(classes=CLASSES),
            data_prefix=dict(img='x'),
            proposal_file='a.pkl')
