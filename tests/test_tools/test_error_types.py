# Licensed under the Apache License, Version 2.0.
"""The table of error types, of one's own classes and split."""
import json
from functools import partial

import pytest

from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.evaluation.class_split import class_split, write_split


@pytest.fixture
def error_types(run_tool):
    return partial(run_tool, 'analysis/error_types.py')


@pytest.fixture
def files(tmp_path):
    """All dogs are found and no person is; ids from 0, as texts in one."""
    annotations = dict(
        images=[dict(id=0), dict(id=1)],
        categories=[dict(id=0, name='person'),
                    dict(id=1, name='dog')],
        annotations=[
            dict(
                id=n, image_id=n // 2, category_id=n % 2, bbox=[9, 9, 20, 20])
            for n in range(4)
        ])
    found = [
        dict(image_id=str(n), category_id=1, bbox=[9, 9, 20, 20], score=.9)
        for n in range(2)
    ]
    paths = tmp_path / 'run.bbox.json', tmp_path / 'val.json'
    for path, content in zip(paths, (found, annotations)):
        path.write_text(json.dumps(content))
    return paths


def test_the_table_for_other_programs(error_types, files):
    code, log = error_types(*files, '--base', 'dog', '--json')
    assert code == 0, log
    # Logged repairs of the file stand before it.
    found = json.loads(log.splitlines()[-1])
    assert found['iou'] == .5
    # Both dogs are found, and neither person is.
    assert found['rows']['base']['AP'] == 100
    assert found['rows']['novel']['AP'] == 0
    assert found['rows']['base']['correct'] == 2
    assert found['rows']['novel']['correct'] == 0


def test_the_split_of_the_run_or_none(error_types, files):
    # COCO's names tell no split: dog is novel in OV-COCO.
    code, text = error_types(*files)
    assert code == 0 and '| all | 50.0 |' in text
    assert 'name the base classes with --base' in text
    assert '| base' not in text and '| novel' not in text
    write_split(
        str(files[0])[:-len('.bbox.json')],
        dict(base=['dog'], novel=['person']))
    code, text = error_types(*files)
    assert code == 0
    assert '| base | 100.0 |' in text and '| novel | 0.0 |' in text
    code, text = error_types(*files, '--base', 'person')
    assert '| base | 0.0 |' in text and '| novel | 100.0 |' in text


@pytest.mark.parametrize('name, content, message', [
    ('run.bbox.json', '[{"image_id": 5}]', "run.bbox.json: entry 0: key 'cat"),
    ('run.bbox.json', '{', 'run.bbox.json: not valid JSON'),
    ('val.json', '[]', 'val.json: expected an object with'),
    ('run.split.json', '{"base": ["cat"]}', 'got none of them'),
])
def test_a_mistake_is_one_line(error_types, files, tmp_path, name, content,
                               message):
    (tmp_path / name).write_text(content)
    code, text = error_types(*files)
    assert code == 1
    assert text.strip().splitlines()[-1].startswith('error: ')
    assert message in text and 'Traceback' not in text


def test_splits_that_a_file_tells():
    lvis = [
        dict(name='a', frequency='f'),
        dict(name='b', frequency='r'),
        dict(name='c', frequency='c')
    ]
    assert class_split(lvis) == dict(base=['a', 'c'], novel=['b'])
    coco = [dict(name=n) for n in ('zebra crossing', )]
    coco += [dict(name=n) for n in OVCocoDataset.METAINFO['classes']]
    groups = class_split(coco)
    assert (len(groups['base']), len(groups['novel'])) == (48, 17)
    assert class_split(coco[:9]) == dict(all=[c['name'] for c in coco[:9]])
    with pytest.raises(ValueError, match="got \\['x'\\]"):
        class_split(coco, ['x'])
