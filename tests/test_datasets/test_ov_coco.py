# Licensed under the Apache License, Version 2.0.
"""Base and novel classes by name, and annotations that do not fit."""
import json

import pytest
from mmdet.datasets import CocoDataset

from mmdet_clim.datasets import (
    OVCoco80Dataset,
    OVCocoDataset,
    build_vocabulary,
)


def instances(boxes, categories, size=(100, 80)):
    """A COCO JSON of one image; boxes as (category id, x, y, w, h)."""
    return dict(
        images=[dict(id=7, file_name='7.png', width=size[0], height=size[1])],
        categories=[dict(id=i, name=n) for i, n in categories.items()],
        annotations=[
            dict(
                id=k,
                image_id=7,
                category_id=c,
                bbox=box,
                area=max(box[2] * box[3], 1),
                iscrowd=0) for k, (c, *box) in enumerate(boxes)
        ])


def build(tmp_path, content, **kwargs):
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(content), encoding='utf-8')
    kwargs.setdefault('pipeline', [])
    return OVCocoDataset(
        ann_file=str(path), data_prefix=dict(img=str(tmp_path)), **kwargs)


def test_classes_are_the_published_split_in_the_order_of_coco():
    meta = OVCocoDataset.METAINFO
    assert (len(meta['classes']), len(meta['base_classes']),
            len(meta['novel_classes']), len(meta['palette'])) == (65, 48, 17,
                                                                  65)
    assert set(meta['base_classes']) | set(meta['novel_classes']) == set(
        meta['classes'])
    coco = list(CocoDataset.METAINFO['classes'])
    order = [coco.index(name) for name in meta['classes']]
    assert order == sorted(order)
    assert meta['palette'][-1] == CocoDataset.METAINFO['palette'][79]
    assert meta['classes'][-1] == 'toothbrush'


def test_the_vocabulary_of_80_classes():
    meta, ov = OVCoco80Dataset.METAINFO, OVCocoDataset.METAINFO
    assert meta['classes'] == CocoDataset.METAINFO['classes']
    assert meta['base_classes'] == ov['base_classes']
    assert meta['novel_classes'] == ov['novel_classes']
    vocabulary = build_vocabulary(dict(dataset='mmdet_clim.OVCoco80Dataset'))
    assert len(vocabulary) == 80 and sum(vocabulary.is_base) == 48
    # Neither base nor novel.
    assert not vocabulary.is_base[vocabulary.names.index('stop sign')]


def test_crowds_are_no_boxes_to_train_on(tmp_path):
    content = instances([(1, 10, 10, 20, 20)], {1: 'cat'})
    content['annotations'][0]['iscrowd'] = 1
    with pytest.raises(
            ValueError, match='none that can be used, but for 1 of'):
        build(tmp_path, content)
    assert len(build(tmp_path, content, test_mode=True)) == 1


def test_a_class_that_the_json_lacks_keeps_its_index(tmp_path):
    # In mmdet, with bicycle absent and the ids out of order, car would
    # become 0 or 1.
    content = instances([(3, 0, 0, 9, 9), (1, 5, 5, 9, 9)], {
        3: 'car',
        1: 'person'
    })
    dataset = build(tmp_path, content)
    names = dataset.metainfo['classes']
    labels = [i['bbox_label'] for i in dataset[0]['instances']]
    assert [names[label] for label in labels] == ['car', 'person']
    assert dataset.cat_ids == [1, 3] and dataset.get_cat_ids(0) == labels


def test_a_class_that_the_vocabulary_lacks_is_dropped_and_counted(
        tmp_path, warnings_logged):
    content = instances([(1, 0, 0, 9, 9), (10, 0, 0, 9, 9), (10, 1, 1, 5, 5)],
                        {
                            1: 'person',
                            10: 'traffic light'
                        })
    dataset = build(tmp_path, content)
    assert len(dataset[0]['instances']) == 1
    assert "2 annotations of classes that the vocabulary lacks: " \
        "{'traffic light': 2}" in warnings_logged[0]
    with pytest.raises(ValueError, match="'traffic light': 2"):
        build(tmp_path, content, strict_classes=True)


def test_no_known_class_and_a_name_twice_are_errors(tmp_path):
    with pytest.raises(ValueError, match='none of its classes is in'):
        build(tmp_path, instances([], {1: 'unicorn'}))
    with pytest.raises(
            ValueError, match="'name' is 'person', expected one that no"):
        build(tmp_path, instances([], {1: 'person', 2: 'person'}))


def test_boxes_are_clipped_to_their_image_or_dropped(tmp_path,
                                                     warnings_logged):
    content = instances(
        [
            (1, 10, 10, 20, 20),  # inside
            (1, -10, 70, 30, 30),  # over the left and the lower edge
            (1, 100, 0, 5, 5),  # beyond the right edge
            (1, 0, -9, 5, 5),  # above
            (1, 50, 50, 50.01, 10),  # over by rounding, not counted
            (1, 50, 50, 0, 10),  # no width
        ],
        {1: 'person'})
    boxes = [i['bbox'] for i in build(tmp_path, content)[0]['instances']]
    assert boxes == [[10, 10, 30, 30], [0, 70, 20, 80], [50, 50, 100, 60]]
    line = warnings_logged[0]
    assert 'repaired 1 boxes that reached out of their image (clipped) (the ' \
        'first: annotations[1] (id 1))' in line
    assert 'dropped 2 boxes outside of their image (the first: ' in line
    assert '1 boxes without width or height (the first: ' in line


@pytest.mark.parametrize(
    'box', [[0, 0, float('nan'), 5], [0, 0, float('inf'), 5], [0, 0, 5]])
def test_a_box_that_is_not_four_finite_numbers_is_an_error(tmp_path, box):
    content = instances([(1, 0, 0, 5, 5)], {1: 'person'})
    content['annotations'][0]['bbox'] = box
    with pytest.raises(
            ValueError, match=r"annotations\[0\] \(id 0\): key 'bbox'"):
        build(tmp_path, content)


def test_an_unreadable_image_is_replaced_in_training_only(
        tmp_path, write_image):
    content = instances([(1, 0, 0, 5, 5)], {1: 'person'})
    content['images'].append(
        dict(id=8, file_name='8.png', width=100, height=80))
    write_image(tmp_path / '8.png', 100, 80)
    load = [dict(type='mmdet_clim.LoadImageText')]
    dataset = build(tmp_path, content, pipeline=load)
    assert dataset[0]['img_id'] == 8 and dataset.unreadable.indices == [0]
    dataset = build(tmp_path, content, pipeline=load, test_mode=True)
    assert dataset[1]['img'].mean() != 114
    sample = dataset[0]
    assert sample['img_id'] == 7 and sample['unreadable']
    assert sample['img'].shape == (80, 100, 3) and (sample['img'] == 114).all()
    assert 'unreadable' not in dataset[1]


def test_images_of_novel_classes_only_can_be_filtered(tmp_path):
    content = instances([(1, 0, 0, 5, 5)], {1: 'person', 17: 'cat'})
    content['images'].append(
        dict(id=8, file_name='8.png', width=100, height=80))
    filtered = build(
        tmp_path, content, filter_cfg=dict(filter_empty_gt=True, min_size=1))
    assert len(filtered) == 1 and len(build(tmp_path, content)) == 2
