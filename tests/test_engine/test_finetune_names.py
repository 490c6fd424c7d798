# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from mmdet_clim.datasets.box_formats import OwnBoxes
from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.engine.finetune_data import named_as
from mmdet_clim.engine.finetune_names import (
    alike_names,
    confusable_names,
    point_out_names,
)

NAMES = ['cat', 'kitten', 'bus', 'buses']
VECTORS = F.normalize(
    torch.tensor([[1., 0, 0], [1., .2, 0], [0, 1., 0], [0, 0, 1.]]), dim=1)


def test_pairs_by_cosine_and_by_spelling():
    pairs = alike_names(NAMES, VECTORS, 0.9)
    assert [(p.one, p.other) for p in pairs] == [('kitten', 'cat')]
    assert pairs[0].cosine == pytest.approx(1 / 1.04**.5)
    spelled = alike_names(['skateboard', 'skate board'], torch.eye(2), 0.9)
    assert [(p.one, p.other, p.cosine)
            for p in spelled] == [('skate board', 'skateboard', 0)]
    assert alike_names(NAMES, VECTORS, 1.01) == []
    assert alike_names(['cat'], VECTORS[:1], 0.1) == []


def test_names_to_add():
    found = confusable_names(['cat', 'kitten'], VECTORS[:2], ['bus', 'lynx'],
                             torch.stack([VECTORS[2], VECTORS[1]]), 0.9)
    # It is nearest to 'kitten', and suggested once.
    assert [(p.one, p.other) for p in found] == [('kitten', 'lynx')]
    assert confusable_names(['cat'], VECTORS[:1], [], VECTORS[:0], 0.1) == []


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr('mmdet_clim.engine.finetune_names.print_log',
                        lambda text, *args: lines.append(text))
    return lines


def config(tmp_path, names, vectors):
    file = tmp_path / 'texts.pth'
    torch.save(dict(names=names, vectors=vectors), file)
    return Config(
        dict(
            model=dict(
                bbox_head=dict(
                    vocabulary=['cat'],
                    classifier=dict(
                        text_encoder=dict(
                            type='mmdet_clim.PrecomputedTextEncoder',
                            file=str(file)),
                        templates=('{}', ))))))


def test_what_the_user_is_told(tmp_path, told):
    cfg = config(tmp_path, NAMES, VECTORS)
    point_out_names(cfg, ['cat', 'bus'], NAMES, 0.9)
    # The last two are alike, and none of them is the user's.
    assert told == [
        'similar names, which the detector may confuse: '
        "'kitten' and 'cat' (0.98)",
        'names that yours could be confused with; add those that occur in '
        "your images: 'cat' and 'kitten' (0.98)"
    ]
    told.clear()
    point_out_names(cfg, ['bus'], ['bus', 'buses'], 0.9)
    assert told == []


def test_names_that_are_the_same(tmp_path):
    cfg = config(tmp_path, ['cat', 'chat'], torch.ones(2, 3))
    with pytest.raises(ValueError, match="distinguish.*'cat' and 'chat'"):
        point_out_names(cfg, ['cat'], ['cat', 'chat'], 0.9)


def test_of_a_detector_that_reads_prompts(told):
    cfg = Config(dict(model=dict(type='mmdet.GLIP')))
    point_out_names(cfg, ['skateboard'], ['skateboard', 'skate board'], 0.9)
    assert len(told) == 1 and "'skate board' and 'skateboard'" in told[0]


def test_boxes_are_named_as_the_vocabulary(tmp_path):
    """Whatever their spelling; two classes that are one share its boxes."""
    content = dict(
        images=[dict(id=1, file_name='a.jpg')],
        categories=[
            dict(id=number, name=name) for number, name in enumerate(
                ['Traffic_Light', 'kitten', 'CAT', 'cow', 'stop-light'], 3)
        ],
        annotations=[
            dict(id=number, image_id=1, category_id=number)
            for number in range(3, 8)
        ])
    vocabulary = build_vocabulary(['cat | kitten', 'traffic light|stop light'])
    boxes = OwnBoxes(content, tmp_path, tmp_path / 'boxes.json')
    found = named_as(boxes, vocabulary)
    assert found.content['categories'] == [
        dict(id=3, name='traffic light'),
        dict(id=4, name='cat'),
        dict(id=6, name='cow')
    ]
    assert [a['category_id']
            for a in found.content['annotations']] == [3, 4, 4, 6, 3]
    assert found.file is None
    same = OwnBoxes(found.content, tmp_path, tmp_path / 'boxes.json')
    assert named_as(same, vocabulary).file == tmp_path / 'boxes.json'
    assert named_as(None, vocabulary) is None
    # A name of the vocabulary is no phrase of another class.
    both = build_vocabulary(['cat | Traffic_Light', 'traffic light'])
    assert named_as(found, both).content['categories'][0]['name'] == \
        'traffic light'
