# Licensed under the Apache License, Version 2.0.
"""OV-LVIS's files, against expectations worked out by hand."""
import json

import pytest

from mmdet_clim.datasets import build_vocabulary
from mmdet_clim.datasets.preparation import coco_json, ov_lvis
from mmdet_clim.datasets.preparation.ov_lvis import (
    check_frequencies,
    lvis_words,
    prepare_ov_lvis,
)


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


def test_every_file_by_hand(lvis_file, tmp_path):
    out = tmp_path / 'out'
    summary, made = prepare_ov_lvis(lvis_file, out)
    assert made
    source = read(lvis_file)
    norare = read(out / 'lvis_v1_train_norare.json')
    assert norare == dict(source, annotations=source['annotations'][2:])

    info = read(out / 'lvis_v1_train_cat_info.json')
    assert [(c['id'], c['frequency'], c['image_count'], c['instance_count'])
            for c in info] == [(2, 'c', 1, 1), (3, 'f', 1, 1), (5, 'r', 1, 2)]
    assert info[0]['synonyms'] == ['aerosol_can', 'spray_can']
    names = (out / 'lvis_v1_train_classes.txt').read_text()
    assert names == 'aerosol can\nbat (sports equipment)\nbat (animal)\n'

    counts = summary['files']['lvis_v1_train_norare.json']
    assert counts == dict(
        images=2,
        boxes=2,
        dropped={'boxes of rare classes': 2},
        boxes_per_class={
            'aerosol can': 1,
            'bat (sports equipment)': 1
        })
    assert summary['frequencies'] == dict(r=1, c=1, f=1)
    assert (summary['base_classes'], summary['novel_classes']) == (2, 1)
    # the file says 7 images, there is 1
    assert summary['classes_whose_counts_the_file_says_differently'] == [
        'bat_(sports_equipment)'
    ]


def test_the_vocabulary_is_read_from_the_category_info(lvis_file, tmp_path):
    prepare_ov_lvis(lvis_file, tmp_path)
    words = build_vocabulary(
        dict(
            dataset='mmdet_clim.OVLVISDataset',
            ann_file=str(tmp_path / 'lvis_v1_train_cat_info.json')))
    assert words.names == ('aerosol can', 'bat (sports equipment)',
                           'bat (animal)')
    assert words.base_names == words.names[:2]
    assert words.image_counts == (1, 1, 1)


def test_killed_and_resumed_is_as_undisturbed(lvis_file, tmp_path, monkeypatch,
                                              killed, files_of):
    prepare_ov_lvis(lvis_file, tmp_path / 'undisturbed')
    with monkeypatch.context() as patch, pytest.raises(killed):

        def die(*_):
            raise killed

        patch.setattr(coco_json, 'write_coco', die)
        prepare_ov_lvis(lvis_file, tmp_path / 'out')
    with monkeypatch.context() as patch:
        # the categories are counted already
        patch.setattr(ov_lvis, '_category_info', die)
        prepare_ov_lvis(lvis_file, tmp_path / 'out')
    assert files_of(tmp_path / 'out') == files_of(tmp_path / 'undisturbed')


@pytest.mark.parametrize('edit, error, message', [
    (lambda c: c['categories'][1].update(frequency='x'), ValueError,
     "category 2: key 'frequency' is 'x', expected one of"),
    (lambda c: c['categories'][1].pop('frequency'), ValueError,
     "category 2: key 'frequency' is missing"),
    (lambda c: c['categories'][0].update(frequency='f'), ValueError,
     'got 3 base and 0 novel'),
    (lambda c: c['annotations'][1].update(category_id=4), ValueError,
     r"annotations\[1\] .*: key 'category_id' is 4"),
    (lambda c: c['images'][0].pop('coco_url'), ValueError,
     r"images\[0\] .*: key 'file_name' is None"),
])
def test_errors_say_where(edit, error, message, lvis_file, tmp_path,
                          change_json):
    change_json(lvis_file, edit)
    with pytest.raises(error, match=message):
        prepare_ov_lvis(lvis_file, tmp_path / 'out')
    with pytest.raises(FileNotFoundError, match='training annotations'):
        prepare_ov_lvis(tmp_path / 'none.json', tmp_path / 'out')


@pytest.mark.parametrize('rare, total, right', [
    (337, 1203, True),
    (336, 1203, False),
    (337, 1202, True),
])
def test_the_published_split_of_1203_classes(rare, total, right):
    categories = {
        i: dict(id=i, frequency='r' if i < rare else 'f')
        for i in range(total)
    }
    if right:
        check_frequencies(categories, 'a.json')
    else:
        with pytest.raises(ValueError, match=r'got \(867, 336\)'):
            check_frequencies(categories, 'a.json')


def test_words_have_no_qualifiers():
    category = dict(
        name='bat_(animal)', synonyms=['bat_(animal)', 'flying_fox', ''])
    assert lvis_words(category, '') == ('bat', 'flying fox')
