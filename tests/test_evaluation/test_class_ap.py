# Licensed under the Apache License, Version 2.0.
import json

import pytest

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.evaluation import compare_class_ap, read_class_ap

WORDS = Vocabulary(('cat', 'dog', 'bus', 'owl'), ('cat', 'bus'))


def write(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(map(json.dumps, lines)))


def test_the_last_test_counts_before_validations(tmp_path):
    write(tmp_path / '20261124_000000' / 'vis_data' / 'scalars.json',
          dict(loss=1., iter=5, step=5), {
              'ov_coco/ap50_cat': .1,
              'ov_coco/base_ap50': .5,
              'step': 5
          }, {
              'ov_coco/ap50_cat': .2,
              'step': 9
          })
    assert read_class_ap(tmp_path) == dict(cat=.2)
    write(
        tmp_path / '20261124_010000' / '20261124_010000.json', {
            'ov_coco/ap50_cat': .3,
            'ov_lvis/box_ap_traffic light': .4,
            'ov_lvis/box_ap50': .9
        })
    # A later test without AP of classes does not hide them.
    write(tmp_path / '20261124_020000' / '20261124_020000.json',
          {'ov_coco/base_ap50': .3})
    assert read_class_ap(tmp_path) == dict(cat=.3)
    assert read_class_ap(tmp_path, 'box AP') == {'traffic light': .4}
    with pytest.raises(ValueError, match='mask_ap_CLASS.*classwise=True'):
        read_class_ap(tmp_path, 'mask AP')


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match='classwise=True'):
        read_class_ap(tmp_path)


def test_gain_of_the_means():
    rows = compare_class_ap(
        dict(
            boxes=[dict(cat=.8, dog=0., bus=.5)],
            CLIM=[dict(cat=.7, dog=.2),
                  dict(cat=.8, dog=.5, bus=.6)]), WORDS)
    assert [r['name'] for r in rows] == ['cat', 'dog', 'bus']
    assert [r['novel'] for r in rows] == [False, True, False]
    assert [r['gain'] for r in rows] == pytest.approx([-5, 35, 10])
    assert rows[1]['values']['CLIM'] == pytest.approx([20, 50])
    turned = compare_class_ap(
        dict(a=[dict(cat=.8)], b=[dict(cat=.5)]), WORDS, gain=('a', 'b'))
    assert turned[0]['gain'] == pytest.approx(30)


def test_what_has_no_gain():
    alone, = compare_class_ap(dict(a=[dict(owl=.5)]), WORDS)
    assert alone['ap'] == dict(a=50) and alone['gain'] is None
    one_sided = compare_class_ap(
        dict(a=[dict(cat=.5)], b=[dict(cat=float('nan'), owl=1.)]), WORDS)
    assert [row['gain'] for row in one_sided] == [None, None]
    assert one_sided[0]['ap'] == dict(a=50, b=None)


@pytest.mark.parametrize('runs, gain, message', [
    ({}, None, 'at least one'),
    (dict(a=[dict(cat=1.)]), ('a', 'z'), "two of ..a..* got .'a', 'z'"),
    (dict(a=[dict(zebra=1.)]), None, 'zebra.*4 classes'),
])
def test_wrong_runs(runs, gain, message):
    with pytest.raises(ValueError, match=message):
        compare_class_ap(runs, WORDS, gain)
