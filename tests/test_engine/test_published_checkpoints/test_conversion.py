# Licensed under the Apache License, Version 2.0.
"""Random weights under the published names come back as they were."""
import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_clim.engine.published_checkpoints import (
    convert_state_dict,
    recognise,
)

# Weights of each model as published: all of ours but the counters of batch
# norms and the norm of Swin's first level, which is not read. The small C4
# model has a fourth block in its last layer: 3 convolutions, 3 norms.
COUNTS = dict(
    c4=(331 - 53 + 15, 53 + 3), r50=(401 - 53, 53), swin=(440 - 2, 2))


def predict(model):
    """Detections in one fixed image."""
    image = torch.randint(
        0, 256, (3, 96, 64), generator=torch.Generator().manual_seed(5))
    sample = DetDataSample(
        metainfo=dict(
            img_shape=(96, 64), ori_shape=(96, 64), scale_factor=(1., 1.)))
    with torch.no_grad():
        return model.test_step(
            dict(inputs=[image.byte()],
                 data_samples=[sample]))[0].pred_instances


@pytest.mark.parametrize('kind, source', [('c4', 'detectron2'),
                                          ('r50', 'detectron2'),
                                          ('swin', 'detectron2'),
                                          ('c4', 'ovdet'), ('r50', 'mmdet'),
                                          ('swin', 'mmdet')])
def test_a_round_trip(detectors, build, published, kind, source):
    original, other = detectors[kind], build(kind, seed=1)
    weights = published(kind, source)
    assert recognise(list(weights)).name == dict(ovdet='detic_c4').get(
        source, source)
    done = convert_state_dict(weights, other)
    converted, kept = COUNTS[kind]
    if kind == 'r50' and source == 'mmdet' or source == 'ovdet':
        # mmdet's batch norms have counters.
        converted, kept = converted + kept, 0
    assert (len(done.converted), len(done.kept)) == (converted, kept)
    assert done.missing == done.ignored == []
    expected = original.state_dict()
    assert list(done.state_dict) == list(expected)
    for name, value in done.state_dict.items():
        if name not in done.kept:
            assert torch.equal(value, expected[name]), name
            assert value.dtype == expected[name].dtype
    other.load_state_dict(done.state_dict, strict=True)
    ours, theirs = predict(original), predict(other)
    assert len(ours) > 0
    for key in ours.keys():
        assert torch.equal(ours[key], theirs[key])


def test_what_follows_from_the_config_is_reported(detectors, published):
    done = convert_state_dict(published('r50'), detectors['r50'])
    assert sorted(
        (reason.partition(',')[0], names)
        for reason, names in done.unused.items()) == [
            ('class vectors', [
                f'roi_heads.box_predictor.{stage}.cls_score.zs_weight'
                for stage in range(3)
            ]),
            ("counts of the classes' images", [
                f'roi_heads.box_predictor.{stage}.freq_weight'
                for stage in range(3)
            ]),
        ]
    assert done.checked == ['pixel_mean', 'pixel_std']


def test_a_resnet_of_timm(detectors, published):
    """Detic's R50 of ImageNet-21k is timm's, whose names are mmdet's."""
    ours = detectors['r50'].state_dict()
    weights = {
        name: value
        for name, value in published('r50').items()
        if not name.startswith('backbone.bottom_up')
    }
    weights.update({
        name.replace('backbone.', 'backbone.bottom_up.base.'): value
        for name, value in ours.items()
        if name.startswith('backbone.') and 'num_batches' not in name
    })
    weights['backbone.bottom_up.base.fc.weight'] = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r'unknown: .*base\.fc\.weight'):
        convert_state_dict(weights, detectors['r50'])
    done = convert_state_dict(
        weights, detectors['r50'], ignore=['backbone.bottom_up.base.fc.*'])
    assert done.ignored == ['backbone.bottom_up.base.fc.weight']
    assert len(done.converted) == COUNTS['r50'][0]
    for name in done.converted:
        assert torch.equal(done.state_dict[name], ours[name])


def test_patch_merging_equals_the_official_formula(detectors, published):
    """The four pixels of a patch as Liu et al. join them, on a small map."""
    weights = published('swin')
    state = convert_state_dict(weights, detectors['swin']).state_dict
    merging = detectors['swin'].backbone.stages[0].downsample
    merging.load_state_dict({
        name.split('downsample.')[1]: value
        for name, value in state.items() if 'stages.0.downsample' in name
    })
    x = torch.randn(
        1, 6, 4, 4, generator=torch.Generator().manual_seed(0))  # N, H, W, C
    joined = torch.cat([
        x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]
    ], -1)
    prefix = 'backbone.bottom_up.layers.0.downsample.'
    expected = torch.nn.functional.layer_norm(joined, (16, ),
                                              weights[f'{prefix}norm.weight'],
                                              weights[f'{prefix}norm.bias'])
    expected = expected @ weights[f'{prefix}reduction.weight'].t()
    actual, size = merging(x.flatten(1, 2), (6, 4))
    assert size == (3, 2)
    torch.testing.assert_close(actual, expected.flatten(1, 2))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(extra=torch.ones(1)), 'unknown: extra$'),
        # A tower with more convolutions than the config's.
        ({
            'proposal_generator.centernet_head.bbox_tower.12.weight':
            torch.ones(1)
        }, r'unknown: .*\(would be rpn_head\.reg_convs\.4\.conv\.weight\)'),
        ({
            'roi_heads.box_predictor.0.cls_score.cls_bias': torch.ones(1)
        }, r'unknown: .*\(would be .*0\.fc_cls\.logit_bias\)'),
        ({
            'roi_heads.mask_head.predictor.weight': torch.ones(5, 16, 1, 1)
        }, r'shape: roi_heads.mask_head.predictor.weight \(5, 16, 1, 1\), '
         r'expected \(1, 16, 1, 1\)'),
        (dict(pixel_mean=torch.tensor([103.53, 116.28, 123.675])),
         r'constant: pixel_mean is \[103\.'),
        # A name of Detectron2's ResNet and timm's name of the same weight.
        ({
            'backbone.bottom_up.base.conv1.weight': torch.ones(4, 3, 7, 7)
        }, 'twice: backbone.conv1.weight, from backbone.bottom_up.stem'),
    ])
def test_what_does_not_fit_is_refused(detectors, published, change, message):
    weights = dict(published('r50'), **change)
    with pytest.raises(ValueError, match=f'(?m)1 problems .*\n  {message}'):
        convert_state_dict(weights, detectors['r50'])


def test_all_that_is_missing_is_listed_at_once(detectors, published):
    weights = published('c4')
    del weights['roi_heads.box_predictor.cls_score.cls_bias']
    del weights['backbone.res2.0.conv1.norm.running_mean']
    with pytest.raises(ValueError) as error:
        convert_state_dict(weights, detectors['c4'])
    assert str(error.value).splitlines() == [
        "2 problems with this checkpoint of detectron2 (Detic's own, of "
        'Detectron2):',
        '  missing: backbone.layer1.0.bn1.running_mean (16,)',
        '  missing: roi_head.bbox_head.fc_cls.logit_bias ()',
    ]
    done = convert_state_dict(
        weights,
        detectors['c4'],
        allow_missing=['*.logit_bias', '*.running_mean'])
    assert done.missing == [
        'backbone.layer1.0.bn1.running_mean',
        'roi_head.bbox_head.fc_cls.logit_bias'
    ]
    # They keep the initial values of whoever loads the rest.
    assert not set(done.missing) & set(done.state_dict)


def test_a_pattern_that_matches_nothing_is_refused(detectors, published):
    with pytest.raises(ValueError, match="(?s)ignore: .*'a.*'b"):
        convert_state_dict(
            published('c4'), detectors['c4'], allow_missing='b', ignore=['a*'])


def test_other_anchors_and_windows_are_refused(detectors, published):
    weights = published('c4')
    weights['proposal_generator.anchor_generator.cell_anchors.0'] *= 2
    with pytest.raises(ValueError, match='constant: .*cell_anchors'):
        convert_state_dict(weights, detectors['c4'])
    weights = published('swin')
    weights['backbone.bottom_up.layers.0.blocks.0.attn.'
            'relative_position_index'] += 1
    with pytest.raises(ValueError, match='constant: .*position_index'):
        convert_state_dict(weights, detectors['swin'])
