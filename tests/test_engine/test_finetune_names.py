# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

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
