# Licensed under the Apache License, Version 2.0.
"""What the reader makes of boxes, against the detector's own box head."""
import copy
from dataclasses import replace
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

from mmdet_clim.models.region_readers import (
    CascadeReader,
    DenseFeatureReader,
    TwoStageReader,
    build_region_reader,
)

STRIDES = [4, 8, 16, 32]
# At finest_scale=8: sides under 16, 32 and 64 pixels go to the first three
# levels, larger ones to the last.
SIDES = [6., 12., 20., 28., 40., 60., 64., 64.]


@pytest.fixture
def fpn_cfg(detector_cfg):
    """The small detector with an FPN of five levels, four of them read."""
    detector_cfg['backbone'].update(
        num_stages=4,
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        out_indices=(0, 1, 2, 3))
    detector_cfg['neck'] = dict(
        type='mmdet.FPN',
        in_channels=[4, 8, 16, 32],
        out_channels=16,
        num_outs=5)
    detector_cfg['rpn_head']['anchor_generator'].update(strides=[
        *STRIDES,
        64,
    ])
    roi_head = detector_cfg['roi_head']
    roi_head['bbox_roi_extractor'].update(
        featmap_strides=STRIDES, finest_scale=8)
    roi_head['bbox_head'].update(
        type='mmdet_clim.ZeroShotConvFCBBoxHead',
        with_avg_pool=False,
        num_shared_convs=1,
        num_shared_fcs=2,
        num_cls_fcs=1,
        conv_out_channels=6,
        fc_out_channels=12,
        reg_predictor_cfg=dict(type='mmdet.Linear'))
    return detector_cfg


@pytest.fixture
def detector(fpn_cfg):
    torch.manual_seed(0)
    return MODELS.build(fpn_cfg).eval()


def boxes():
    """One box of each side, in the corner of the first or second image."""
    return bbox2roi([
        torch.tensor([[0., 0., s, s] for s in SIDES[0::2]]),
        torch.tensor([[0., 0., s, s] for s in SIDES[1::2]])
    ])


def features(detector):
    torch.manual_seed(1)
    return TwoStageReader().extract_feat(detector, torch.randn(2, 3, 64, 64))


def read(detector, feats, rois):
    stage, = TwoStageReader().stages(detector, feats)
    return stage.read(rois)


def test_boxes_stand_on_every_level(detector):
    extractor = detector.roi_head.bbox_roi_extractor
    levels = extractor.map_roi_levels(boxes(), len(STRIDES))
    assert sorted(set(levels.tolist())) == [0, 1, 2, 3]


def test_embeddings_are_those_of_the_box_head(detector):
    """On an FPN: what its own forward pass gives to the classifier."""
    seen = []
    head = detector.roi_head.bbox_head
    feats, rois = features(detector), boxes()
    handle = head.fc_cls.projection.register_forward_hook(
        lambda module, args, output: seen.append(output))
    scores = detector.roi_head._bbox_forward(feats.levels, rois)['cls_score']
    handle.remove()
    found = read(detector, feats, rois)
    assert found.shape == (8, 8)
    torch.testing.assert_close(found, seen[0])
    torch.testing.assert_close(head.fc_cls.score(found), scores)
    # The levels give the regions different embeddings.
    assert torch.pdist(found).min() > 1e-4


def test_a_region_does_not_depend_on_the_others(detector):
    feats, rois = features(detector), boxes()
    for roi, expected in zip(rois, read(detector, feats, rois)):
        torch.testing.assert_close(
            read(detector, feats, roi[None])[0], expected)
    empty = read(detector, feats, rois[:0])
    assert empty.shape == (0, 8)
    empty.sum().backward()


def test_gradients_reach_every_level_of_neck_and_backbone(detector):
    detector.train()
    read(detector, features(detector), boxes()).pow(2).sum().backward()

    def reached(module):
        return {
            name
            for name, p in module.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0
        }

    backbone = reached(detector.backbone)
    for stage in ('conv1', 'layer1', 'layer2', 'layer3', 'layer4'):
        assert any(name.startswith(stage) for name in backbone), stage
    assert reached(detector.neck) == set(
        dict(detector.neck.named_parameters()))
    head = reached(detector.roi_head.bbox_head)
    parts = {name.split('.')[0] for name in head}
    assert parts == {'shared_convs', 'shared_fcs', 'cls_fcs', 'fc_cls'}
    assert not reached(detector.rpn_head)


def test_proposals_of_all_levels(detector, make):
    samples = [make['box'](1)[1], make['box'](2)[1]]
    feats = features(detector)
    # As many as training draws from, not as many as testing takes.
    detector.test_cfg.rpn = dict(detector.test_cfg.rpn, max_per_img=5)
    found = TwoStageReader().propose(detector, feats)
    detector.rpn_head.test_cfg = detector.train_cfg.rpn_proposal
    expected = detector.rpn_head.predict(feats.levels, samples, rescale=False)
    assert [len(f) for f in found] == [20, 20]
    for mine, own in zip(found, expected):
        torch.testing.assert_close(mine.bboxes, own.bboxes)
        torch.testing.assert_close(mine.scores, own.scores)
        assert (mine.scores.diff() <= 0).all()
        assert not mine.bboxes.requires_grad


def test_it_is_the_reader_of_an_fpn_detector_and_trains_it(
        fpn_cfg, clim_cfg, make):
    clim_cfg['detector'] = fpn_cfg
    torch.manual_seed(0)
    model = MODELS.build(clim_cfg).train()
    assert isinstance(
        build_region_reader(None, model.detector, 8), TwoStageReader)
    assert isinstance(model.region_reader, TwoStageReader)
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    losses = model.branch_loss('mosaic', data['inputs']['mosaic'],
                               data['data_samples']['mosaic'])
    (losses['mosaic.caption.loss'] + losses['mosaic.tag.loss']).backward()
    # Tiles of 32 pixels and unions of them stand on the last two levels.
    assert model.detector.neck.lateral_convs[3].conv.weight.grad.abs().sum(
    ) > 0
    assert model.detector.backbone.layer4[1].conv2.weight.grad.abs().sum() > 0


def test_regions_of_c4_pass_through_the_shared_head(detector_cfg):
    torch.manual_seed(0)
    detector = MODELS.build(detector_cfg).eval()
    roi_head = detector.roi_head
    roi_head.shared_head = torch.nn.Conv2d(16, 16, 3, padding=1)
    feats, rois = features(detector), boxes()
    pooled = roi_head.bbox_roi_extractor(feats.levels, rois)
    expected = roi_head.bbox_head.fc_cls.projection(
        roi_head.shared_head(pooled).mean((2, 3)))
    torch.testing.assert_close(read(detector, feats, rois), expected)
    without = roi_head.bbox_head.fc_cls.projection(pooled.mean((2, 3)))
    assert not torch.allclose(without, expected, rtol=.1)


def test_a_plain_box_head_is_refused(fpn_cfg):
    fpn_cfg['roi_head']['bbox_head'] = dict(
        type='mmdet.Shared2FCBBoxHead',
        in_channels=16,
        roi_feat_size=4,
        num_classes=5)
    with pytest.raises(TypeError, match='got Shared2FCBBoxHead'):
        TwoStageReader().check(MODELS.build(fpn_cfg))


def test_maps_whose_memory_is_channels_last(detector):
    feats = features(detector)
    turned = replace(
        feats,
        levels=[
            f.contiguous(memory_format=torch.channels_last)
            for f in feats.levels
        ])
    torch.testing.assert_close(
        read(detector, turned, boxes()), read(detector, feats, boxes()))


def test_proposals_of_a_cascade_rpn(fpn_cfg, make):
    """Its head is several, and no module that one calls."""
    mmdet_cfg = Config.fromfile(
        Path(mmdet.__file__).parent / '.mim/configs/cascade_rpn/'
        'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py').model
    fpn_cfg['rpn_head'] = mmdet_cfg.rpn_head
    for stage in fpn_cfg['rpn_head'].stages:
        stage.update(in_channels=16, feat_channels=16)
    fpn_cfg['train_cfg'].rpn = mmdet_cfg.train_cfg.rpn
    torch.manual_seed(0)
    detector = MODELS.build(fpn_cfg).eval()
    _, sample = make['mosaic'](0)
    sample.set_metainfo(dict(pad_shape=(64, 64)))
    feats = TwoStageReader().extract_feat(detector, torch.randn(1, 3, 64, 64),
                                          [sample])
    with torch.no_grad():
        expected, = detector.rpn_head.predict(feats.levels, [sample])
    found, = TwoStageReader().propose(detector, feats)
    assert len(found) > 0 and (found.scores.diff() <= 0).all()
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    with torch.autocast('cpu', torch.bfloat16):
        mixed, = TwoStageReader().propose(detector, feats)
    torch.testing.assert_close(mixed.bboxes, expected.bboxes)


@pytest.fixture
def trident_cfg(detector_cfg):
    """A TridentNet of 64 channels that predicts with its second branch."""
    branches = dict(num_branch=3, test_branch_idx=1)
    detector_cfg.update(type='mmdet.TridentFasterRCNN')
    detector_cfg['backbone'].update(
        type='mmdet.TridentResNet',
        depth=50,
        trident_dilations=(1, 2, 3),
        norm_eval=True,
        **branches)
    detector_cfg['rpn_head'].update(in_channels=64)
    roi_head = detector_cfg['roi_head']
    roi_head.update(type='mmdet.TridentRoIHead', **branches)
    roi_head['bbox_roi_extractor'].update(out_channels=64)
    roi_head['bbox_head'].update(in_channels=64)
    return detector_cfg


def build_trident(cfg):
    """Built, with values in the memory that mmdet leaves as it was."""
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    for name, parameter in model.named_parameters():
        if 'layer3' in name and 'conv2' in name:
            torch.nn.init.normal_(parameter, std=.1)
    return model


@pytest.mark.parametrize('reader', [TwoStageReader(), DenseFeatureReader()])
def test_of_several_branches_the_one_that_predicts(trident_cfg, reader):
    trident = build_trident(trident_cfg)
    images = torch.randn(2, 3, 64, 64)
    expected, = trident.eval().extract_feat(images)
    level, = trident.train().extract_feat(images)
    branches = level.unflatten(0, (3, 2))
    torch.testing.assert_close(branches[1], expected)
    for other in (0, 2):
        assert not torch.allclose(branches[other], expected, rtol=.01)
    for mode in (True, False):
        feats = reader.extract_feat(trident.train(mode), images)
        torch.testing.assert_close(feats.levels, (expected, ))


def test_a_trident_net_trains(trident_cfg, clim_cfg, batch):
    model = build_trident(ConfigDict(clim_cfg, detector=trident_cfg)).train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert losses['mosaic.caption.loss'] > 0 and losses['loss_bbox'] >= 0
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


#: Box heads of mmdet that have no ``embed``: arguments beside those that the
#: small detector gives, and of the RoI head.
BOX_HEADS = {
    'SABLHead': (dict(
        cls_in_channels=16,
        reg_in_channels=16,
        cls_out_channels=12,
        reg_offset_out_channels=16,
        reg_cls_out_channels=16,
        num_cls_fcs=1,
        num_reg_fcs=0,
        bbox_coder=dict(
            type='mmdet.BucketingBBoxCoder', num_buckets=8,
            scale_factor=1.7)), dict()),
    'DoubleConvFCBBoxHead':
    (dict(
        num_convs=1,
        num_fcs=1,
        in_channels=16,
        conv_out_channels=8,
        fc_out_channels=12,
        loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False)),
     dict(type='mmdet.DoubleHeadRoIHead', reg_roi_scale_factor=1.3)),
}


@pytest.fixture(params=BOX_HEADS)
def other_head_cfg(request, detector_cfg):
    """The small detector with a head that ``ZeroShotHead`` has built."""
    arguments, of_roi_head = BOX_HEADS[request.param]
    roi_head = detector_cfg['roi_head']
    own = roi_head['bbox_head']
    head = dict(
        type=f'mmdet.{request.param}',
        roi_feat_size=4,
        reg_class_agnostic=True,
        **arguments)
    head.setdefault('bbox_coder', own['bbox_coder'])
    roi_head.update(of_roi_head)
    roi_head['bbox_head'] = dict(
        type='mmdet_clim.ZeroShotHead',
        vocabulary=own['vocabulary'],
        classifier=own['classifier'],
        head=head)
    return detector_cfg


def test_what_any_zero_shot_box_head_compares(other_head_cfg):
    torch.manual_seed(0)
    detector = MODELS.build(other_head_cfg).eval()
    reader = build_region_reader(None, detector, 8)
    assert type(reader) is TwoStageReader
    assert not list(reader.parameters())
    feats, rois = features(detector), boxes()
    found = read(detector, feats, rois)
    assert found.shape == (8, 8)
    layer = detector.roi_head.bbox_head.fc_cls
    scores = detector.roi_head._bbox_forward(feats.levels, rois)['cls_score']
    torch.testing.assert_close(layer.score(found), scores)
    assert torch.pdist(found).min() > 1e-5
    empty = read(detector, feats, rois[:0])
    assert empty.shape == (0, 8)
    empty.sum().backward()
    # Of maps whose memory is in another order, too.
    others = [m.to(memory_format=torch.channels_last) for m in feats.levels]
    torch.testing.assert_close(
        read(detector, replace(feats, levels=tuple(others)), rois), found)
    # Of two layers that classify, it is not known which names a region.
    detector.roi_head.bbox_head.another = copy.deepcopy(layer)
    with pytest.raises(TypeError, match='2 layers that classify'):
        TwoStageReader().check(detector)


def test_mosaics_reach_any_zero_shot_box_head(clim_cfg, other_head_cfg, batch):
    """What names boxes, and not what regresses them."""
    torch.manual_seed(0)
    clim_cfg['detector'] = other_head_cfg
    model = MODELS.build(clim_cfg).train()
    data = model.data_preprocessor(batch, True)
    losses = model(**data, mode='loss')
    assert losses['loss_cls'] > 0
    mosaic = sum(v for k, v in losses.items()
                 if k.startswith('mosaic.') and k.endswith('loss'))
    mosaic.backward()
    head = model.detector.roi_head.bbox_head
    assert head.fc_cls.projection.weight.grad.any()
    for name, p in head.named_parameters():
        if 'reg' in name:
            assert p.grad is None or not p.grad.any(), name


def test_a_cascade_has_to_regress_by_itself(detector_cfg, other_head_cfg):
    """Its stages refine proposals by what a ``ZeroShotMixin`` has."""
    detector = MODELS.build(other_head_cfg)
    detector.roi_head.__class__ = type('Cascade', (CascadeRoIHead, ), {})
    with pytest.raises(TypeError, match='CascadeReader needs box heads'):
        CascadeReader().check(detector)
