# Licensed under the Apache License, Version 2.0.
import json
import runpy
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

TOOL = 'visualization/compare_detections.py'
# person is a base class, dog a novel one
CATEGORIES = [dict(id=1, name='person'), dict(id=18, name='dog')]
# of each image, dogs and persons: x, y, width, height
BOXES = {
    7: [(18, [10, 10, 48, 47])],  # not large enough
    3: [(18, [10, 10, 48, 48]), (1, [60, 60, 30, 30])],
    5: [(1, [0, 0, 90, 90])],  # not novel
    1: [(18, [20, 20, 60, 70])],
}


@pytest.fixture(scope='module')
def tool(repository):
    return runpy.run_path(str(repository / 'tools' / TOOL))


def info(number, *objects):
    return dict(
        img_id=number,
        instances=[
            dict(bbox=box, bbox_label=label, ignore_flag=ignored)
            for label, box, ignored in objects
        ])


def test_images_are_chosen_by_id_and_size_of_a_novel_object(tool):
    large, thin = [0, 0, 48, 60], [0, 0, 200, 47.9]
    infos = [
        info(9, (1, large, 0)),
        info(4, (1, thin, 0)),
        info(2, (0, large, 0)),
        info(3, (1, large, 1)),
        info(5, (0, thin, 0), (1, large, 0)),
        info(6),
        info(7, (1, large, 0)),
    ]

    def chosen(num):
        return [
            i['img_id'] for i in tool['choose_images'](infos, [1], num, 48)
        ]

    assert chosen(2) == [5, 7]
    assert chosen(9) == [5, 7, 9]
    with pytest.raises(ValueError, match='novel.*48 pixels.*none in 4'):
        tool['choose_images'](infos[1:4] + infos[5:6], [1], 3, 48)


def test_the_head_of_a_column(tool):
    from mmengine.structures import InstanceData
    found = InstanceData(
        labels=torch.tensor([1, 1, 0]), correct=torch.tensor([True, False, 1]))
    assert tool['headline']('CLIM', [found, found], Counter({
        True: 5,
        False: 3
    }), [1]) == ('CLIM: 2 of 5 novel, 2 of 3 base objects, 2 wrong')


def test_novel_objects_of_all_images(tool):
    share = tool['share_of_novel']
    found = [(dict(category_id=1), True), (dict(category_id=1), False),
             (dict(category_id=0), True)]
    objects = [dict(category_id=label) for label in (0, 1, 1, 1)]
    assert share(found, objects, [1]) == '1 of 3'
    assert share([], objects, []) == '0 of 0'


@pytest.fixture
def config(repository, tmp_path):
    """A config of four images, and the tool's results of a detector."""
    images, annotations, found = [], [], []
    for number, boxes in BOXES.items():
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.full((100, 100, 3), 9))
        images.append(
            dict(id=number, file_name=f'{number}.png', width=100, height=100))
        for category, box in boxes:
            entry = dict(image_id=number, category_id=category, bbox=box)
            annotations.append(
                dict(
                    entry,
                    id=len(annotations) + 1,
                    area=box[2] * box[3],
                    iscrowd=0))
            found.append(dict(entry, score=.01))
    (tmp_path / 'boxes.json').write_text(
        json.dumps(
            dict(
                images=images, categories=CATEGORIES,
                annotations=annotations)))
    cfg = Config.fromfile(repository /
                          'configs/openmoji/faster-rcnn_r18-c4_256_base.py')
    cfg.val_dataloader.dataset.update(
        data_root=str(tmp_path),
        ann_file='boxes.json',
        data_prefix=dict(img=''))
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'all.json').write_text(json.dumps(found))
    (tmp_path / 'none.json').write_text('[]')
    return tmp_path / 'config.py'


def test_a_picture(config, run_tool):
    folder = config.parent
    out = folder / 'new' / 'a.png'
    code, log = run_tool(TOOL, config, '--found', 'all', folder / 'all.json',
                         '--found', 'nothing', folder / 'none.json', '--side',
                         200, '--out', out)
    assert code == 0, log
    assert f'{out}: 2 images, 2 detectors' in log
    picture = cv2.imread(str(out))
    assert picture.shape[1] == 3 * 208 + 8
    # Both have the truth's boxes, or none at all; heads and legend apart.
    rows = slice(picture.shape[0] - 40 - 2 * 208, picture.shape[0] - 40)
    truth, found, nothing = (
        picture[rows, 8 + c * 208:208 + c * 208] for c in range(3))
    orange = (truth == (0, 94, 213)).all(-1)
    assert orange.sum() > 500
    assert (found == (0, 94, 213)).all(-1).sum() > 500
    assert (nothing == 9).all(-1).mean() > .9


@pytest.mark.parametrize('content, message', [
    ('{', 'expected COCO results'),
    ('[{"image_id": 1}]', 'KeyError'),
    ('[{"image_id": 1, "category_id": 99, "bbox": [], "score": 1}]', '99'),
])
def test_wrong_detections(config, run_tool, content, message):
    file = config.parent / 'wrong.json'
    file.write_text(content)
    code, log = run_tool(TOOL, config, '--found', 'a', file, '--out',
                         config.parent / 'a.png')
    assert code == 1
    last = log.splitlines()[-1]
    assert last.startswith('error: --found:')
    assert 'wrong.json' in last and message in last


def test_wrong_arguments(config, run_tool):
    arguments = TOOL, config, '--found', 'a', 'no.json', '--out', 'a.png'
    code, log = run_tool(*arguments)
    assert code == 1 and "No such file or directory: 'no.json'" in log
    code, log = run_tool(TOOL, config, '--found', 'a',
                         config.parent / 'none.json', '--out',
                         config.parent / 'a.foo')
    assert code == 1 and log.splitlines()[-1].startswith('error: ')
    assert '.foo' in log.splitlines()[-1]
    code, log = run_tool(*arguments, '--num', 0)
    assert code == 2 and '--num: expected at least 1, got 0' in log
