# Licensed under the Apache License, Version 2.0.
"""F-ViT: what is trained, how scores are joined, other vocabularies."""
import copy
import json

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.models.roi_heads import ensemble_scores

NORM = dict(type='GN', num_groups=4)
VOCABULARY = Vocabulary(('cat', 'dog', 'cow', 'bus', 'cup'),
                        ('cat', 'dog', 'cow'))
VISION = dict(
    vit=dict(image_size=32, layers=2, width=16, patch_size=8, head_width=8),
    resnet=dict(image_size=64, layers=[1, 1, 1, 1], width=4, head_width=16))


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Model configuration and checkpoint of towers of width 8."""
    import open_clip
    folder = tmp_path_factory.mktemp('clips')
    files = {}
    for name, vision in VISION.items():
        file = folder / f'fvit-{name}.json'
        text = dict(
            context_length=8, vocab_size=49408, width=8, heads=1, layers=1)
        file.write_text(
            json.dumps(dict(embed_dim=8, vision_cfg=vision, text_cfg=text)))
        open_clip.add_model_config(file)
        torch.manual_seed(0)
        weights = folder / f'{name}.pt'
        torch.save(open_clip.create_model(file.stem).state_dict(), weights)
        files[name] = dict(model=str(file), pretrained=str(weights))
    return files


@pytest.fixture
def fvit_cfg(detector_cfg, clips):
    """On the small detector's losses, samplers and anchors."""

    def make(tower='vit', masks=False):
        cfg = copy.deepcopy(detector_cfg)
        vit = tower == 'vit'
        cfg.type = 'mmdet_clim.FViT'
        cfg.data_preprocessor.update(pad_size_divisor=64, pad_mask=True)
        cfg.backbone = dict(
            type='mmdet_clim.OpenCLIPViT', norm_cfg=NORM, **
            clips['vit']) if vit else dict(
                type='mmdet_clim.OpenCLIPResNet', **clips['resnet'])
        cfg.neck = dict(
            type='mmdet.FPN',
            in_channels=[16] * 4 if vit else [16, 32, 64, 128],
            out_channels=16,
            num_outs=5)
        strides = [2, 4, 8, 16, 32] if vit else [4, 8, 16, 32, 64]
        cfg.rpn_head.update(num_convs=2)
        cfg.rpn_head.anchor_generator.strides = strides
        extractor = cfg.roi_head.bbox_roi_extractor
        extractor.featmap_strides = strides[:4]
        encoder = cfg.roi_head.bbox_head.classifier.text_encoder
        cfg.roi_head.update(
            type='mmdet_clim.FViTRoIHead',
            alpha=.1,
            beta=.8,
            clip_temperature=75.)
        cfg.roi_head.bbox_head = dict(
            type='mmdet_clim.ZeroShotConvFCBBoxHead',
            vocabulary=VOCABULARY,
            classifier=dict(
                type='mmdet_clim.SoftmaxZeroShotClassifier',
                text_encoder=encoder,
                templates=('{}', )),
            loss_cls=dict(type='mmdet_clim.BaseClassSoftmaxLoss'),
            num_shared_convs=1,
            num_shared_fcs=1,
            num_cls_fcs=1,
            num_reg_fcs=1,
            in_channels=16,
            conv_out_channels=16,
            fc_out_channels=16,
            roi_feat_size=4,
            reg_class_agnostic=True,
            bbox_coder=cfg.rpn_head.bbox_coder,
            loss_bbox=dict(type='mmdet.L1Loss'))
        if masks:
            cfg.roi_head.mask_roi_extractor = copy.deepcopy(extractor)
            cfg.roi_head.mask_head = dict(
                type='mmdet.FCNMaskHead',
                num_convs=1,
                in_channels=16,
                conv_out_channels=16,
                num_classes=1,
                class_agnostic=True,
                loss_mask=dict(type='mmdet.CrossEntropyLoss', use_mask=True))
            cfg.train_cfg.rcnn.mask_size = 8
            cfg.test_cfg.rcnn.mask_thr_binary = .5
        return cfg

    return make


def build(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def base_batch(make):
    """Boxes of base classes alone, as an open-vocabulary file has them."""
    samples = [make['box'](seed) for seed in (1, 2)]
    for _, sample in samples:
        sample.gt_instances.labels %= 3
    return make['collate'](*samples)


@pytest.mark.parametrize('tower', ['vit', 'resnet'])
def test_only_neck_and_heads_are_trained(fvit_cfg, make, tower):
    model = build(fvit_cfg(tower, masks=True)).train()
    data = model.data_preprocessor(base_batch(make), True)
    before = copy.deepcopy(model.backbone.tower.state_dict())
    losses = model(**data, mode='loss')
    assert {key
            for key in losses if 'loss' in key} == {
                'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox',
                'loss_mask'
            }
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None for p in model.backbone.tower.parameters())
    assert not model.backbone.tower.training
    untrained = [
        name for name, p in model.named_parameters() if p.grad is None
    ]
    assert untrained == []
    after = model.backbone.tower.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not [key for key in model.state_dict() if 'visual' in key]


def sample_with(boxes):
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=(64, 64),
            ori_shape=(128, 128),
            scale_factor=(.5, .5)))
    sample.proposals = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4),
        scores=torch.ones(len(boxes)))
    return sample


@pytest.mark.parametrize('tower', ['vit', 'resnet'])
def test_scores_join_the_detector_and_the_frozen_tower(fvit_cfg, tower):
    model = build(fvit_cfg(tower)).eval()
    images = torch.randn(2, 3, 64, 64)
    boxes = [[[0., 0., 20., 20.], [30., 30., 60., 60.]], [[4., 8., 50., 60.]]]
    samples = [sample_with(own) for own in boxes]
    head = model.roi_head
    with torch.no_grad():
        found = model.predict(images, copy.deepcopy(samples), rescale=True)
        x = model.extract_feat(images)
        rois = torch.tensor([[0., *boxes[0][0]], [0., *boxes[0][1]],
                             [1., *boxes[1][0]]])
        detector = head._bbox_forward(x, rois)['cls_score'].softmax(1)
        embeddings = model.backbone.tower.region_features(images, rois)
        clip = (
            75 *
            embeddings @ head.bbox_head.fc_cls.all_embeddings().t()).softmax(1)
    expected = torch.cat([
        detector[:, :3]**.9 * clip[:, :3]**.1,
        detector[:, 3:5]**.2 * clip[:, 3:5]**.8
    ], 1)
    for image, rows in enumerate((slice(0, 2), slice(2, 3))):
        scores = found[image].pred_instances.scores
        every = expected[rows].flatten().sort(descending=True)[0]
        torch.testing.assert_close(scores, every[:len(scores)])
        assert len(scores) == min(10, len(every))
    assert found[1].pred_instances.bboxes.max() > 64  # of the original image


@pytest.mark.parametrize('tower', ['vit', 'resnet'])
@pytest.mark.parametrize('mode', ['value', 'attention', 'masked_pool'])
def test_a_batch_is_what_its_images_are(fvit_cfg, tower, mode):
    """mmcv's RoIAlign takes every map for contiguous."""
    cfg = fvit_cfg(tower, masks=True)
    cfg.backbone.mode = mode
    model = build(cfg).eval()
    images = torch.randn(2, 3, 64, 64)
    samples = [
        sample_with([[0., 0., 20., 20.], [30., 30., 60., 60.]]),
        sample_with([[4., 8., 50., 60.]])
    ]
    with torch.no_grad():
        batch = model.predict(images, copy.deepcopy(samples))
        for image, sample, found in zip(images, samples, batch):
            alone, = model.predict(image[None], [copy.deepcopy(sample)])
            for key in ('scores', 'bboxes', 'labels'):
                torch.testing.assert_close(
                    found.pred_instances[key],
                    alone.pred_instances[key],
                    rtol=1e-3,
                    atol=1e-4)
            # A pixel or two may lie at the threshold.
            other = found.pred_instances.masks != alone.pred_instances.masks
            assert other.float().mean() < 1e-3
    weights = [
        p for part in (model.backbone, model.neck) for p in part.parameters()
    ]

    def gradients(pixels):
        levels = model.extract_feat(pixels)
        assert all(level.is_contiguous() for level in levels)
        return torch.autograd.grad(
            sum(level.square().sum() for level in levels), weights)

    for both, first, second in zip(
            gradients(images), gradients(images[:1]), gradients(images[1:])):
        torch.testing.assert_close(both, first + second, rtol=1e-2, atol=1e-3)


def test_ensemble_by_hand():
    detector = torch.tensor([[.25, .04, .5]])
    clip = torch.tensor([[.01, .25, .125]])
    found = ensemble_scores(detector, clip, torch.tensor([True, False]), .5,
                            1.)
    # sqrt(.25 * .01), .25 alone, sqrt(.5 * .125): background counts as base.
    torch.testing.assert_close(found, torch.tensor([[.05, .25, .25]]))
    none = ensemble_scores(detector[:0], clip[:0], torch.tensor([True, False]),
                           .1, .8)
    assert none.shape == (0, 3)


def test_masks_and_images_without_proposals(fvit_cfg):
    model = build(fvit_cfg(masks=True)).eval()
    images = torch.randn(2, 3, 64, 64)
    samples = [sample_with([[4., 8., 50., 60.]]), sample_with([])]
    with torch.no_grad():
        first, second = model.predict(images, samples)
        assert len(first.pred_instances) == 5
        assert first.pred_instances.masks.shape == (5, 128, 128)
        assert len(second.pred_instances) == 0
        both = [sample_with([]), sample_with([])]
        assert all(
            len(sample.pred_instances) == 0
            for sample in model.predict(images, both))


def test_proposals_of_the_rpn(fvit_cfg):
    model = build(fvit_cfg('resnet')).eval()
    sample = sample_with([])
    del sample.proposals
    with torch.no_grad():
        found, = model.predict(torch.randn(1, 3, 64, 64), [sample])
    assert len(found.pred_instances) == 10
    assert found.pred_instances.labels.max() < 5


def test_other_vocabulary_with_base_classes_by_their_names(fvit_cfg):
    cfg = fvit_cfg()
    cfg.roi_head.trained_vocabulary = VOCABULARY
    model = build(cfg).eval()
    assert model.roi_head.is_base == (True, True, True, False, False)
    model.set_vocabulary(['cup', 'cow'])
    assert model.roi_head.is_base == (False, True)
    with torch.no_grad():
        found, = model.predict(
            torch.randn(1, 3, 64, 64), [sample_with([[4., 8., 50., 60.]])])
    assert sorted(found.pred_instances.labels.tolist()) == [0, 1]
    # Without the trained vocabulary, that of the head has the say.
    plain = build(fvit_cfg())
    plain.set_vocabulary(Vocabulary(('cup', 'cow'), ('cup', )))
    assert plain.roi_head.is_base == (True, False)
    # Names alone tell no split: base are those that had boxes in training.
    plain.set_vocabulary(['bus', 'dog'])
    assert plain.roi_head.is_base == (False, True)


def test_what_does_not_fit(fvit_cfg, detector_cfg):
    cfg = fvit_cfg()
    cfg.roi_head.alpha = 1.5
    with pytest.raises(ValueError, match='alpha: expected 0 to 1, got 1.5'):
        MODELS.build(cfg)
    cfg = fvit_cfg()
    cfg.roi_head.bbox_head.classifier.pop('type')
    cfg.roi_head.bbox_head.loss_cls = dict(
        type='mmdet_clim.BaseClassSigmoidLoss')
    with pytest.raises(TypeError, match='a SoftmaxZeroShotClassifier, got'):
        MODELS.build(cfg)
    cfg = fvit_cfg()
    cfg.backbone = detector_cfg.backbone
    with pytest.raises(TypeError, match='expected backbone OpenCLIPViT'):
        MODELS.build(cfg)
    cfg = fvit_cfg()
    wide = json.loads(open(cfg.backbone.model).read())
    wide['embed_dim'] = 12
    file = cfg.backbone.model.replace('fvit-vit', 'fvit-wide')
    with open(file, 'w') as stream:
        json.dump(wide, stream)
    cfg.backbone.update(model=file, pretrained=None)
    with pytest.raises(ValueError, match='width 8, expected 12'):
        MODELS.build(cfg)
