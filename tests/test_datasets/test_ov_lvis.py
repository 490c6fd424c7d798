# Licensed under the Apache License, Version 2.0.
"""Classes from a file, their split, images by their URL."""
import json

import pytest
from mmdet.datasets.lvis import LVISV1Dataset

from mmdet_clim.datasets import OVLVISDataset, build_vocabulary

# Not in the order of the ids.
CATEGORIES = [
    dict(id=9, name='sharp_knife', frequency='r', image_count=3),
    dict(id=2, name='bat_(animal)', frequency='f', image_count=400),
    dict(id=5, name='cow', frequency='c', image_count=40),
]
TYPE = 'mmdet_clim.OVLVISDataset'


def lvis(boxes=(), categories=CATEGORIES, **image):
    """An LVIS JSON of one image; boxes as (category id, x, y, w, h)."""
    image = image or dict(
        coco_url='http://images.cocodataset.org/val2017/000000000042.jpg')
    return dict(
        images=[
            dict(
                id=42,
                width=100,
                height=80,
                neg_category_ids=[5],
                not_exhaustive_category_ids=[],
                **image)
        ],
        categories=categories,
        annotations=[
            dict(
                id=k + 1,
                image_id=42,
                category_id=c,
                bbox=box,
                area=box[2] * box[3],
                segmentation=[[0, 0, 9, 0, 9, 9]])
            for k, (c, *box) in enumerate(boxes)
        ])


def write(tmp_path, content, name='lvis.json'):
    path = tmp_path / name
    path.write_text(json.dumps(content), encoding='utf-8')
    return str(path)


def build(tmp_path, content, **kwargs):
    return OVLVISDataset(
        ann_file=write(tmp_path, content),
        data_prefix=dict(img='images'),
        pipeline=[],
        **kwargs)


def test_split_by_frequency_in_the_order_of_the_ids(tmp_path):
    meta = build(tmp_path, lvis([(5, 0, 0, 9, 9)])).metainfo
    assert meta['classes'] == ('bat (animal)', 'cow', 'sharp knife')
    assert meta['base_classes'] == ('bat (animal)', 'cow')
    assert meta['novel_classes'] == ('sharp knife', )
    assert meta['image_counts'] == (400, 40, 3)
    assert meta['raw_names'] == ('bat_(animal)', 'cow', 'sharp_knife')
    assert len(set(meta['palette'])) == 3


def test_labels_and_the_image_path(tmp_path):
    dataset = build(
        tmp_path, lvis([(9, 0, 0, 9, 9), (2, 90, 5, 30, 9), (5, 1, 1, 4, 4)]))
    sample = dataset[0]
    assert sample['img_path'] == 'images/val2017/000000000042.jpg'
    assert [i['bbox_label'] for i in sample['instances']] == [2, 0, 1]
    assert sample['instances'][1]['bbox'] == [90, 5, 100, 14]
    assert sample['instances'][0]['mask'] == [[0, 0, 9, 0, 9, 9]]
    assert dataset.get_cat_ids(0) == [2, 0, 1]


def test_an_image_with_a_file_name_and_one_with_neither(tmp_path):
    sample = build(tmp_path, lvis([(5, 0, 0, 9, 9)], file_name='a.jpg'))[0]
    assert sample['img_path'] == 'images/a.jpg'
    with pytest.raises(ValueError, match='coco_url'):
        build(tmp_path, lvis([(5, 0, 0, 9, 9)], licence=3))


def test_classes_of_another_file(tmp_path):
    """A base-only file may lack the categories of rare classes."""
    content = lvis([(5, 0, 0, 9, 9)], CATEGORIES[1:])
    write(tmp_path, content, 'norare.json')
    write(tmp_path, CATEGORIES, 'categories.json')
    dataset = OVLVISDataset(
        data_root=str(tmp_path),
        ann_file='norare.json',
        category_file='categories.json',
        data_prefix=dict(img=''),
        pipeline=[])
    assert len(dataset.metainfo['classes']) == 3
    assert dataset[0]['instances'][0]['bbox_label'] == 1


def test_a_source_of_a_vocabulary(tmp_path):
    path = write(tmp_path, dict(categories=CATEGORIES))
    vocabulary = build_vocabulary(dict(dataset=TYPE, ann_file=path))
    assert vocabulary.names == ('bat (animal)', 'cow', 'sharp knife')
    assert vocabulary.is_base == (True, True, False)
    assert vocabulary.image_counts == (400, 40, 3)
    assert vocabulary.raw_names == ('bat_(animal)', 'cow', 'sharp_knife')
    part = vocabulary.subset([2, 0])
    assert part.names == ('sharp knife', 'bat (animal)')
    assert part.base_names == ('bat (animal)', )
    assert part.image_counts == (3, 400)
    assert part.raw_names == ('sharp_knife', 'bat_(animal)')
    assert build_vocabulary(['cow']).subset([0]) == build_vocabulary(['cow'])
    # A file that changes is read again.
    write(tmp_path, dict(categories=CATEGORIES[:1]))
    assert len(build_vocabulary(dict(dataset=TYPE, ann_file=path))) == 1


def test_a_vocabulary_with_a_split_of_ones_own():
    split = build_vocabulary(dict(names=['cat', 'cow'], base_names=['cow']))
    assert split.names == ('cat', 'cow') and split.is_base == (False, True)
    with pytest.raises(ValueError, match=r"not classes: \['dog'\]"):
        build_vocabulary(dict(names=['cat'], base_names=['dog']))


@pytest.mark.parametrize('source, message', [
    (dict(names=['cat']), 'dict\\(names'),
    (dict(dataset=TYPE), 'give its ann_file'),
    (dict(dataset='mmdet_clim.OVCocoDataset', ann_file='a'), 'METAINFO'),
    (dict(dataset=TYPE, file='a'), "got keys \\['dataset', 'file'\\]"),
])
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        build_vocabulary(source)


@pytest.mark.parametrize('categories, message', [
    ([dict(CATEGORIES[0], frequency='x')], 'frequency'),
    ([dict(id=1, name='cow', frequency='r')], 'image_count'),
    ([CATEGORIES[0], dict(CATEGORIES[0], id=1)], 'no other'),
    ([CATEGORIES[0],
      dict(CATEGORIES[0], id=1, name='sharp knife')], 'twice'),
    ([], 'expected a list'),
])
def test_bad_categories(tmp_path, categories, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, lvis(categories=categories))


def test_lvis_v1_has_866_base_and_337_novel_classes(tmp_path):
    names = LVISV1Dataset.METAINFO['classes']

    def categories(rare):
        return [
            dict(
                id=i + 1,
                name=name,
                frequency='r' if i < rare else 'cf'[i % 2],
                image_count=i) for i, name in enumerate(names)
        ]

    meta = OVLVISDataset.read_metainfo(write(tmp_path, categories(337)))
    assert [
        len(meta[key]) for key in ('classes', 'base_classes', 'novel_classes')
    ] == [1203, 866, 337]
    assert meta['classes'][0] == 'aerosol can'
    with pytest.raises(ValueError, match='866, 337'):
        OVLVISDataset.read_metainfo(write(tmp_path, categories(338)))
