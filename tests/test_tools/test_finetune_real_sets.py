# Licensed under the Apache License, Version 2.0.
"""Sets of users as they came, through fine-tuning, where they are at hand."""
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
from mmengine.config import Config

from mmdet_clim.engine.finetune_run import Finetuning

NAME = 'faster-rcnn_r18-c4_256_base'
SETS = dict(
    chess=('valid', 'valid', None),  # those of its boxes
    fruit=('.', '.', ['apple', 'banana', 'orange']),
    bccd=('.', 'JPEGImages', ['RBC', 'WBC', 'Platelets']))


def counts_of(folder, name):
    """Boxes by class, and those of no extent, from the files themselves."""
    if name == 'chess':
        content = json.loads(
            (folder / 'valid/_annotations.coco.json').read_text())
        names = {c['id']: c['name'] for c in content['categories']}
        return Counter(names[a['category_id']]
                       for a in content['annotations']), 0
    counts, broken = Counter(), 0
    for file in folder.rglob('*.xml'):
        for item in ElementTree.parse(file).iter('object'):
            box = {side.tag: float(side.text) for side in item.find('bndbox')}
            if box['xmax'] > box['xmin'] and box['ymax'] > box['ymin']:
                counts[item.find('name').text] += 1
            else:
                broken += 1
    return counts, broken


@pytest.mark.parametrize('name', SETS)
def test_two_iterations_on_boxes_and_their_names(name, repository,
                                                 small_detector, tmp_path,
                                                 capsys):
    """All boxes that have an extent are trained on; chess is reported."""
    folder = repository.parent / 'shared' / 'real' / 'own' / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    boxes, images, names = SETS[name]
    counts, broken = counts_of(folder, name)
    names = names or sorted(counts)
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    reported = name == 'chess'
    Finetuning(
        small_detector(NAME, 128),
        repository / f'configs/openmoji/{NAME}.pth',
        images=folder / images,
        vocabulary=tmp_path / 'names.txt',
        tags='boxes',
        boxes=folder / boxes,
        val_boxes=folder / boxes if reported else None,
        work_dir=tmp_path / 'out',
        iterations=2,
        batch_size=3,
        workers=0,
        keep=['person'] if reported else ['none'],
        leave=('labels', 'report') if reported else ()).run()
    printed = capsys.readouterr().out
    assert (tmp_path / 'out' / 'detector.pth').is_file()
    trained = Config.fromfile(tmp_path / 'out' / 'finetune.py')
    file = trained.train_dataloader.dataset.datasets[0].ann_file
    content = json.loads(open(file).read())
    label = {c['id']: c['name'] for c in content['categories']}
    assert Counter(label[a['category_id']]
                   for a in content['annotations']) == counts
    assert all(i['width'] > 0 and i['height'] > 0 for i in content['images'])
    assert not broken or f' {broken} boxes' in printed
    tags = json.loads((tmp_path / 'out' / 'captions.json').read_text())
    boxed = {a['image_id'] for a in content['annotations']}
    assert len(tags['images']) == len(boxed)
    if reported:
        thresholds = json.loads(
            (tmp_path / 'out' / 'thresholds.json').read_text())
        assert {
            key: of['boxes']
            for key, of in thresholds.items() if of['boxes']
        } == counts
        report = (tmp_path / 'out' / 'report.html').read_text()
        for title in ('Data', 'Training', 'AP of each class',
                      'Before and after', 'Proposed boxes', 'Settings'):
            assert f'<h2>{title}</h2>' in report
        assert all(piece in report for piece in counts)
        # It is evaluated on what it is trained on.
        assert '8 of its 8 images are trained on' in report
