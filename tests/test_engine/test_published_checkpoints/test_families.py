# Licensed under the Apache License, Version 2.0.
"""Which published checkpoint a file is, and the class vectors in it."""
import pytest
import torch
from mmdet.datasets import CocoDataset

from mmdet_clim.engine.published_checkpoints import (
    ClassVectors,
    class_agreement,
    find_class_vectors,
    names_of_rows,
    recognise,
    write_class_vectors,
)
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.text_encoders import PrecomputedTextEncoder


@pytest.mark.parametrize(
    'names, message',
    [
        ([], 'those of none'),
        (['backbone.conv1.weight'], 'those of none'),
        # One of this package.
        (['roi_head.bbox_head.fc_cls.projection.weight'], 'those of none'),
        (['roi_heads.res5.0.conv1.weight', 'backbone.visual.proj'
          ], r'those of several: detectron2 .*; fvit'),
    ])
def test_what_is_unclear_is_refused(names, message):
    with pytest.raises(
            ValueError, match=f'one published family, got {message}'):
        recognise(names)


@pytest.mark.parametrize('name, family', [
    ('visual.trunk.pos_embed', 'clip'),
    ('visual.conv1.weight', 'clip'),
    ('visual.blocks.0.norm1.weight', 'eva_clip'),
    ('proposal_generator.rpn_head.conv.weight', 'detectron2'),
    ('roi_head.bbox_head.0.fc_cls.linear.weight', 'mmdet'),
    ('roi_head.bbox_head.fc_cls.weight', 'detic_c4'),
])
def test_one_name_tells_the_family(name, family):
    assert recognise([name, 'other']).name == family


def test_heads_of_baron_and_fvit_are_no_detic():
    head = 'roi_head.bbox_head.fc_cls.weight'
    assert recognise([head, 'roi_head.baron_kd.x']).name == 'baron'
    assert recognise([head, 'backbone.visual.proj']).name == 'fvit'


def test_class_vectors_are_rows():
    rows = torch.arange(6.).view(2, 3)
    found = find_class_vectors({
        'a': rows,
        'roi_head.bbox_head.cls_embeddings': rows
    })
    assert torch.equal(found.vectors, rows)
    # Detectron2's are columns, with one more of the background.
    columns = torch.cat([rows.t(), torch.zeros(3, 1)], 1)
    name = 'roi_head.bbox_head.1.fc_cls.zs_weight'
    found = find_class_vectors({name: columns})
    assert found.source == name and torch.equal(found.vectors, rows)
    assert find_class_vectors({'a': rows}) is None


def test_whose_rows_they_are():
    assert names_of_rows(2, ('cat', 'dog')) == ['cat', 'dog']
    names = names_of_rows(80, ('cat', 'dog'))
    assert names == list(CocoDataset.METAINFO['classes'])
    assert (names[0], names[79]) == ('person', 'toothbrush')
    assert names_of_rows(3, ('cat', 'dog')) is None


def test_class_vectors_are_read_by_the_encoder(tmp_path):
    vectors = torch.tensor([[3., 4.], [0., 2.]])
    file = tmp_path / 'new' / 'a.npz'
    write_class_vectors(
        ClassVectors('x', vectors), ['cat', 'dog'], '"a " and the name', file)
    encoder = PrecomputedTextEncoder(str(file))
    torch.testing.assert_close(
        encoder(['dog', 'cat']), torch.tensor([[0., 1.], [.6, .8]]))
    vectors[1] = 0
    with pytest.raises(ValueError, match=r"x: .* got others for \['dog'\]"):
        write_class_vectors(
            ClassVectors('x', vectors), ['cat', 'dog'], '', tmp_path / 'b.npz')
    assert not (tmp_path / 'b.npz').exists()


def test_classes_of_the_config_are_compared(tmp_path):
    """Of COCO's 80 rows, those of two classes; the third is no row."""
    torch.manual_seed(0)
    coco = CocoDataset.METAINFO['classes']
    rows = torch.randn(80, 4)
    own = torch.stack([rows[coco.index('dog')], -rows[coco.index('cat')]])
    file = tmp_path / 'a.pth'
    torch.save(
        dict(
            names=['dog', 'cat', 'yak'],
            vectors=torch.cat([own, torch.ones(1, 4)])), file)
    cfg = dict(
        text_encoder=dict(
            type='mmdet_clim.PrecomputedTextEncoder', file=str(file)),
        templates=('{}', ))
    classifier = ZeroShotClassifier(3, ['dog', 'cat', 'yak'], **cfg)
    found = ClassVectors('x', rows)
    assert class_agreement(found, classifier, cfg) == pytest.approx(0)
    classifier.set_vocabulary(['yak'])
    with pytest.raises(ValueError, match='no class in common'):
        class_agreement(found, classifier, cfg)
    with pytest.raises(ValueError, match='5 rows for 1 classes'):
        class_agreement(ClassVectors('x', rows[:5]), classifier, cfg)
