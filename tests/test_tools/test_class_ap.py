# Licensed under the Apache License, Version 2.0.
import json
from functools import partial

import pytest


def write_test(work_dir, metrics):
    file = work_dir / '20261124_000000' / '20261124_000000.json'
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(metrics))
    return work_dir


@pytest.fixture
def draw(run_tool):
    return partial(run_tool, 'analysis/class_ap.py')


def test_ov_coco(tmp_path, draw):
    before = write_test(tmp_path / 'a', {
        'ov_coco/ap50_cat': .1,
        'ov_coco/ap50_car': .8
    })
    after = write_test(tmp_path / 'b', {
        'ov_coco/ap50_cat': .4,
        'ov_coco/ap50_car': .7
    })
    code, log = draw('--run', 'boxes', before, '--run', 'CLIM', after,
                     '--out-dir', tmp_path / 'out')
    assert code == 0, log
    rows = json.loads((tmp_path / 'out' / 'class_ap.json').read_text())
    gains = {row['name']: (row['novel'], row['gain']) for row in rows}
    assert gains['cat'] == (True, pytest.approx(30))
    assert gains['car'] == (False, pytest.approx(-10))
    assert (tmp_path / 'out' / 'class_ap.png').stat().st_size > 1000


def test_ov_lvis(tmp_path, draw):
    categories = [
        dict(id=i, name=name, frequency=f, image_count=3)
        for i, (name, f) in enumerate([('bat_(animal)', 'r'), ('cup', 'f')])
    ]
    annotations = tmp_path / 'lvis.json'
    annotations.write_text(json.dumps(dict(categories=categories)))
    run = write_test(tmp_path / 'a', {
        'ov_lvis/mask_ap_bat (animal)': .1,
        'ov_lvis/mask_ap_cup': .8
    })
    code, log = draw('--run', 'a', run, '--kind', 'mask AP', '--annotations',
                     annotations, '--out-dir', tmp_path)
    assert code == 0, log
    rows = json.loads((tmp_path / 'class_ap.json').read_text())
    assert [row['novel'] for row in rows] == [True, False]


@pytest.mark.parametrize('arguments, message', [
    (['--run', 'a'], 'at least one work dir'),
    (['--run', 'a', 'x', '--kind', 'box AP'], '--annotations'),
])
def test_wrong_options(tmp_path, draw, arguments, message):
    code, log = draw(*arguments, '--out-dir', tmp_path)
    assert code == 2 and message in log
