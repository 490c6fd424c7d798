# Licensed under the Apache License, Version 2.0.
"""The split of configs/coco_small, against expectations made by hand."""
import json
import os

import pytest

from mmdet_clim.datasets import ImageTextDataset, OVCocoDataset
from mmdet_clim.datasets.preparation import coco_small
from mmdet_clim.datasets.preparation.coco_small import (
    held_out,
    prepare_coco_small,
)

OUT = 'annotations'


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


@pytest.fixture
def val2017(coco_folder, write_picture):
    """COCO's folder with val2017: the four images, 512 x 300 and smaller."""
    root = coco_folder.parent
    content = read(coco_folder / 'instances_val2017.json')
    for image, size in zip(content['images'],
                           ((512, 300), (256, 300), (200, 100), (100, 256))):
        image.update(width=size[0], height=size[1])
        write_picture(root / 'val2017' / image['file_name'], *size)
    for box in content['annotations']:
        box.pop('segmentation')
    (coco_folder / 'instances_val2017.json').write_text(json.dumps(content))
    captions = read(coco_folder / 'captions_train2017.json')
    captions['images'] = content['images']
    (coco_folder / 'captions_val2017.json').write_text(json.dumps(captions))
    return root


@pytest.fixture
def split(monkeypatch):
    """Hold out image 9 for evaluation, whatever the seed."""
    monkeypatch.setattr(coco_small, 'held_out', lambda *args: {9})


def test_every_file_by_hand(val2017, split, tmp_path):
    summary, made = prepare_coco_small(val2017, tmp_path / 'out')
    assert made
    out = tmp_path / 'out' / OUT
    base, val = read(out / coco_small.TRAIN_BASE), read(out / coco_small.VAL)
    names = {c['id']: c['name'] for c in base['categories']}
    assert len(names) == 65
    assert [i['id'] for i in base['images']] == [7, 3, 4]
    assert [i['id'] for i in val['images']] == [9]
    # 512 x 300 fit into 256 pixels at half the size; what is small stays.
    sizes = {i['id']: (i['width'], i['height']) for i in base['images']}
    assert sizes == {7: (256, 150), 3: (218, 256), 4: (100, 256)}
    box, = base['annotations']
    assert names[box['category_id']] == 'person'
    assert box['bbox'] == [.75, 1., 1.5, 2.125]
    assert box['area'] == 12.75 / 4
    assert [names[a['category_id']] for a in val['annotations']] == ['bus'] * 2
    every = read(out / coco_small.TRAIN_ALL)['annotations']
    assert [names[a['category_id']] for a in every] == ['person', 'cat']
    assert [a['id'] for a in every] == [1, 2]
    captioned = read(out / coco_small.TRAIN_CAPTIONS)['images']
    assert {
        i['id']: i['captions']
        for i in captioned
    } == {
        7: ['A man with a kitten.', 'someone and a café'],
        3: ['a hot dog']
    }
    tags = {
        i['id']: [names[t] for t in i['pos_category_ids']]
        for i in captioned
    }
    assert {
        k: set(v)
        for k, v in tags.items()
    } == {
        7: {'person', 'cat'},
        3: set()  # a hot dog is no dog
    }
    assert summary['dropped'] == {
        'boxes of other classes': 1,
        'empty captions': 1
    }
    counts = summary['files'][coco_small.TRAIN_CAPTIONS]
    assert counts['dropped'] == {'images without a caption': 1}


def test_the_data_sets_read_it(val2017, split, tmp_path):
    out = tmp_path / 'out'
    prepare_coco_small(val2017, out)
    boxes = OVCocoDataset(
        data_root=str(out),
        ann_file=f'{OUT}/{coco_small.TRAIN_BASE}',
        data_prefix=dict(img='images/'),
        pipeline=[dict(type='LoadImageFromFile')])
    assert len(boxes) == 3
    assert boxes[0]['img'].shape == (150, 256, 3)
    captions = ImageTextDataset(
        vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
        data_root=str(out),
        ann_file=f'{OUT}/{coco_small.TRAIN_CAPTIONS}',
        data_prefix=dict(img='images/'),
        pipeline=[dict(type='mmdet_clim.LoadImageText')])
    assert len(captions) == 2
    assert captions[0]['captions'][0] == 'A man with a kitten.'


def test_it_is_made_once_and_of_one_seed(val2017, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    monkeypatch.setattr(coco_small, 'held_out', lambda ids, purpose, seed: {9}
                        if seed else {3})
    assert prepare_coco_small(val2017, out)[1]
    assert not prepare_coco_small(val2017, out)[1]
    with pytest.raises(FileExistsError, match='parameters seed'):
        prepare_coco_small(val2017, out, seed=1)
    prepare_coco_small(val2017, out, seed=1, overwrite=True)
    assert [i['id'] for i in read(out / OUT / coco_small.VAL)['images']] == [9]


def split_folder(val2017, tmp_path):
    """The same photographs as a folder that is split already."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    os.rename(val2017 / 'val2017', folder / 'images')
    content = read(val2017 / coco_small.COCO_BOXES)
    for image in content['images']:
        image.update(width=20, height=10)
    names = {c['id']: c['name'] for c in content['categories']}
    for name, images, classes in ((coco_small.SPLIT_BASE, (7, 3), {'person'}),
                                  (coco_small.SPLIT_NOVEL, (7, 3),
                                   {'cat'}), (coco_small.SPLIT_VAL, (9, ),
                                              {'bus', 'person'})):
        kept = [
            a for a in content['annotations']
            if names[a['category_id']] in classes and a['image_id'] in images
        ]
        of_file = [
            c for c in content['categories']
            if name != coco_small.SPLIT_BASE or c['name'] != 'cat'
        ]
        (folder / name).write_text(
            json.dumps(
                dict(
                    images=[i for i in content['images'] if i['id'] in images],
                    annotations=kept or content['annotations'][:0],
                    categories=of_file)))
    captions = read(val2017 / coco_small.COCO_CAPTIONS)
    captions['images'] = [i for i in content['images'] if i['id'] in (7, 3)]
    captions['annotations'] = [
        a for a in captions['annotations'] if a['image_id'] in (7, 3)
    ]
    (folder / coco_small.SPLIT_CAPTIONS).write_text(json.dumps(captions))
    return folder


def test_photographs_that_are_split_are_taken_as_they_are(val2017, tmp_path):
    folder = split_folder(val2017, tmp_path)
    out = tmp_path / 'out'
    summary, _ = prepare_coco_small(folder, out)
    assert (out / 'images').resolve() == folder / 'images'
    counts = {
        name: (of['images'], of.get('boxes'))
        for name, of in summary['files'].items()
    }
    assert counts == {
        coco_small.TRAIN_BASE: (2, 1),
        coco_small.TRAIN_ALL: (2, 2),
        coco_small.TRAIN_CAPTIONS: (2, None),
        coco_small.VAL: (1, 2)
    }


def test_development_leaves_the_evaluation_photographs_out(
        val2017, tmp_path, monkeypatch):
    folder = split_folder(val2017, tmp_path)
    monkeypatch.setattr(coco_small, 'held_out', lambda *args: {3})
    out = tmp_path / 'out'
    prepare_coco_small(folder, out, for_development=True)
    train = read(out / OUT / coco_small.TRAIN_BASE)['images']
    val = read(out / OUT / coco_small.VAL)['images']
    assert ([i['id'] for i in train], [i['id'] for i in val]) == ([7], [3])


def test_about_three_in_ten_are_held_out_and_none_depends_on_the_others():
    ids = range(2000)
    chosen = held_out(ids, 'coco_small', 0)
    assert 540 <= len(chosen) <= 660
    assert held_out([*ids][::2], 'coco_small',
                    0) == {i
                           for i in chosen if i % 2 == 0}
    other = held_out(ids, 'coco_small', 1)
    # Of independent draws, nine in a hundred are in both.
    assert 120 <= len(chosen & other) <= 240


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='found neither'):
        prepare_coco_small(tmp_path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_missing_photographs_are_told_before_anything_is_written(
        val2017, split, tmp_path):
    os.rename(val2017 / 'val2017', tmp_path / 'elsewhere')
    with pytest.raises(FileNotFoundError, match='val2017: no such folder'):
        prepare_coco_small(val2017, tmp_path / 'out')
    assert not (tmp_path / 'out' / 'images').exists()


def test_a_photograph_of_another_size_is_told(val2017, split, tmp_path,
                                              write_picture):
    write_picture(val2017 / 'val2017' / '7.jpg', 30, 40)
    with pytest.raises(ValueError, match=r'7\.jpg: 30x40 .* 512x300'):
        prepare_coco_small(val2017, tmp_path / 'out')


def test_captions_of_unknown_images_are_told(val2017, split, tmp_path,
                                             change_json):
    change_json(
        val2017 / coco_small.COCO_CAPTIONS, lambda c: c['images'].append(
            dict(c['images'][0], id=88, file_name='88.jpg')))
    with pytest.raises(ValueError, match='have no entry in .* id 88'):
        prepare_coco_small(val2017, tmp_path / 'out')


def test_a_photograph_is_in_one_part(val2017, tmp_path, change_json):
    """An image of both sides would be trained on and evaluated."""
    folder = split_folder(val2017, tmp_path)
    image = read(folder / coco_small.SPLIT_BASE)['images'][0]
    change_json(folder / coco_small.SPLIT_VAL,
                lambda c: c['images'].append(image))
    with pytest.raises(ValueError, match='1 images are .* id 7'):
        prepare_coco_small(folder, tmp_path / 'out')
