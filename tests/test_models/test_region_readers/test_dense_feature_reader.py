# Licensed under the Apache License, Version 2.0.
"""Regions of detectors that have no region head."""
import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import nn

from mmdet_clim.models.dense_heads import ZeroShotLayer
from mmdet_clim.models.region_readers import (
    DenseFeatureReader,
    build_region_reader,
)
from mmdet_clim.models.region_readers.dense_feature_reader import (
    _stride,
    encoder_maps,
)
from mmdet_clim.models.region_readers.other_maps import class_embedding_maps

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']
ROIS = torch.tensor([[0., 0., 0., 32., 32.], [1., 16., 16., 64., 64.],
                     [0., 0., 0., 64., 64.]])


def read_regions(reader, detector, feats, rois):
    stage, = reader.stages(detector, feats)
    return stage.read(rois)


@pytest.fixture
def build(clim_cfg):

    def build(detector, **changes):
        torch.manual_seed(0)
        model = MODELS.build(
            ConfigDict(clim_cfg, detector=copy.deepcopy(detector), **changes))
        model.init_weights()
        return model

    return build


@pytest.mark.parametrize('name, asked, source, strides', [
    ('fcos', None, 'classifier', [8, 16, 32, 64]),
    ('detr', None, 'query', None),
    ('detr', 'encoder', 'encoder', [8, 16]),
])
def test_it_is_picked_and_every_parameter_learns(request, build, batch, name,
                                                 asked, source, strides):
    """By itself, a reader of what the detector compares with class names."""
    detector = request.getfixturevalue(f'{name}_cfg')
    reader = asked and dict(type='mmdet_clim.DenseFeatureReader', source=asked)
    model = build(detector, region_reader=reader).train()
    reader = model.region_reader
    assert isinstance(reader, DenseFeatureReader)
    assert reader.source == source
    assert strides == (reader.extractor and reader.extractor.featmap_strides)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    losses = model(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    assert 'loss_bbox' in losses
    for key in ('mosaic.caption.loss', 'mosaic.tag.loss'):
        assert losses[key] > 0
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


def mosaic_gradients(model, make):
    """Names of the parameters that a mosaic alone moves."""
    data = model.data_preprocessor(make['collate'](make['mosaic'](0)), True)
    losses = model.branch_loss('mosaic', data['inputs']['mosaic'],
                               data['data_samples']['mosaic'])
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    return {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_mosaics_train_the_classifier(build, fcos_cfg, make):
    reached = mosaic_gradients(build(fcos_cfg).train(), make)
    assert 'detector.bbox_head.conv_cls.projection.weight' in reached
    assert any('cls_convs' in name for name in reached)
    assert any('layer4' in name for name in reached)
    assert not any('conv_reg' in name for name in reached)


@pytest.fixture
def condinst_cfg(fcos_cfg):
    """The small FCOS with masks beside its boxes."""
    fcos_cfg['type'] = 'mmdet.CondInst'
    fcos_cfg['bbox_head']['head'].update(
        type='mmdet.CondInstBboxHead', num_params=169)
    fcos_cfg['mask_head'] = dict(
        type='mmdet.CondInstMaskHead',
        num_layers=3,
        feat_channels=8,
        size_of_interest=8,
        mask_out_stride=4,
        max_masks_to_train=8,
        mask_feature_head=dict(
            in_channels=8,
            feat_channels=8,
            start_level=0,
            end_level=2,
            out_channels=8,
            mask_stride=8,
            num_stacked_convs=1,
            norm_cfg=None),
        loss_mask=dict(type='mmdet.DiceLoss', use_sigmoid=True))
    return fcos_cfg


def test_mosaics_train_the_classifier_beside_masks(build, condinst_cfg, make):
    model = build(condinst_cfg).train()
    assert model.region_reader.source == 'classifier'
    reached = mosaic_gradients(model, make)
    assert 'detector.bbox_head.conv_cls.projection.weight' in reached
    assert not any('conv_reg' in name or 'mask_head' in name
                   for name in reached)


def test_mosaics_train_neck_and_projection(build, fcos_cfg, make):
    model = build(
        fcos_cfg,
        region_reader=dict(
            type='mmdet_clim.DenseFeatureReader', source='neck')).train()
    reached = mosaic_gradients(model, make)
    assert 'region_reader.projection.weight' in reached
    assert any('lateral_convs' in name for name in reached)
    assert not any('bbox_head' in name for name in reached)


def test_a_region_is_the_mean_of_its_cells(build, fcos_cfg, monkeypatch):
    """The box of a 64-pixel image covers 8 x 8 cells of stride 8."""
    model = build(fcos_cfg).eval()
    feats = model.region_reader.extract_feat(model.detector,
                                             torch.randn(2, 3, 64, 64))
    with monkeypatch.context() as patch:
        patch.setattr(ZeroShotLayer, 'score', None)  # no class is scored
        found = read_regions(model.region_reader, model.detector, feats, ROIS)
    assert all(maps.any()
               for maps in model.detector.bbox_head(feats.levels)[0])
    embedded = class_embedding_maps(model.detector.bbox_head, feats.levels)
    assert 'conv_reg' in model.region_reader.idle
    assert [e.shape for e in embedded][0] == (2, 8, 8, 8)
    # Aligned RoIAlign clamps at the border alone: the inside is compared.
    ramp = torch.arange(8.).expand(2, 8, 8, 8)
    box = torch.tensor([[0., 16., 16., 48., 48.]])
    pooled = model.region_reader.embed([ramp.contiguous(), *embedded[1:4]],
                                       box)
    torch.testing.assert_close(pooled, torch.full((1, 8), 3.5))
    assert found.shape == (3, 8)
    expected = model.detector.bbox_head.conv_cls.projection(
        model.detector.bbox_head.cls_convs[0](feats.levels[0]))
    torch.testing.assert_close(embedded[0], expected)


@pytest.mark.parametrize('name, source', [('fcos', 'classifier'),
                                          ('fcos', 'neck'),
                                          ('detr', 'encoder')])
def test_a_batch_is_what_its_images_are(request, build, name, source):
    """The second image is smaller and padded."""
    detector = request.getfixturevalue(f'{name}_cfg')
    reader = dict(type='mmdet_clim.DenseFeatureReader', source=source)
    model = build(detector, region_reader=reader).eval()
    weights = [p for p in model.detector.backbone.parameters()]
    images = torch.randn(2, 3, 64, 96)
    images[1, :, 48:] = images[1, :, :, 64:] = 0
    sizes = [(64, 96), (48, 64)]

    def read(inputs, shapes, rois):
        samples = [
            DetDataSample(metainfo=dict(img_shape=shape)) for shape in shapes
        ]
        feats = model.region_reader.extract_feat(model.detector, inputs,
                                                 samples)
        found = read_regions(model.region_reader, model.detector, feats, rois)
        return found, torch.autograd.grad(
            found.square().sum(), weights, materialize_grads=True)

    together, grads = read(images, sizes, ROIS)
    alone = [
        read(image[None], [shape], torch.cat([0 * rois[:, :1], rois[:, 1:]],
                                             1))
        for image, shape, rois in zip(images, sizes, (ROIS[ROIS[:, 0] == 0],
                                                      ROIS[ROIS[:, 0] == 1]))
    ]
    order = ROIS[:, 0].argsort(stable=True)
    torch.testing.assert_close(
        together[order],
        torch.cat([found for found, _ in alone]),
        rtol=1e-3,
        atol=1e-5)
    for both, first, second in zip(grads, *(of for _, of in alone)):
        torch.testing.assert_close(both, first + second, rtol=1e-2, atol=1e-4)


def test_what_is_padding_is_masked(build, detr_cfg):
    """The encoder is told, and reads otherwise if it is not."""
    model = build(detr_cfg).eval()
    detector, reader = model.detector, model.region_reader
    for name, parameter in detector.encoder.named_parameters():
        if 'sampling_offsets' in name or 'attention_weights' in name:
            # At first they do not look at what they are asked.
            torch.nn.init.normal_(parameter)
    images = torch.randn(2, 3, 64, 96)
    masks = []
    handle = detector.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs['key_padding_mask']),
        with_kwargs=True)
    found = []
    for shape in ((48, 64), (64, 96)):
        samples = [
            DetDataSample(metainfo=dict(img_shape=of))
            for of in ((64, 96), shape)
        ]
        feats = reader.extract_feat(detector, images, samples)
        found.append(read_regions(reader, detector, feats, ROIS))
    handle.remove()
    finest = masks[0][:, :8 * 12].unflatten(1, (8, 12))
    assert not finest[0].any()
    expected = torch.ones(8, 12, dtype=torch.bool)
    expected[:6, :8] = False
    assert torch.equal(finest[1], expected)
    assert masks[1] is None or not masks[1].any()
    # That of the second image alone.
    change = (found[0] - found[1]).abs().amax(1)
    assert change[1] > 1e-3 and change[[0, 2]].max() < 1e-4


def test_a_large_region_is_read_from_a_coarse_map(build, fcos_cfg):
    """One of 14 cells of a map, and up to 28, from that map."""
    reader = build(fcos_cfg).region_reader
    maps = [
        torch.full((1, 8, 256 >> level, 256 >> level), float(level))
        for level in range(4)
    ]
    sides = [8, 111, 112, 223, 225, 447, 449, 895, 897, 2000]
    rois = torch.tensor([[0., 0, 0, side, side] for side in sides])
    assert reader.embed(maps,
                        rois)[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_the_best_boxes_that_do_not_overlap():
    """Of two that do, whatever their classes, the better one."""
    found = InstanceData(
        bboxes=torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 6.],
                             [20., 0., 30., 10.], [40., 0., 50., 10.]]),
        scores=torch.tensor([.5, .9, .8, .7]),
        labels=torch.tensor([0, 1, 0, 0]))
    for nms_iou, most, expected in ((.5, 9, [.9, .8, .7]), (.5, 2, [.9, .8]),
                                    (.7, 9, [.9, .8, .7, .5])):
        best = DenseFeatureReader(
            max_proposals=most, nms_iou=nms_iou)._best(found)
        torch.testing.assert_close(best.scores, torch.tensor(expected))
        assert len(best.bboxes) == len(expected)


@pytest.mark.parametrize('kwargs', [
    dict(max_proposals=0),
    dict(max_proposals='9'),
    dict(nms_iou=1.1),
])
def test_proposals_that_can_not_be(kwargs):
    with pytest.raises(ValueError, match=f'{next(iter(kwargs))}: expected'):
        DenseFeatureReader(**kwargs)


class Patches(nn.Module):
    """Four levels on patches of 14 pixels, as of a vision transformer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def extract_feat(self, inputs):
        pad = [-inputs.shape[3] % 14, -inputs.shape[2] % 14]
        x = nn.functional.pad(inputs, (0, pad[0], 0, pad[1])) * self.scale
        whole = nn.functional.avg_pool2d(x, 14)
        return (nn.functional.interpolate(whole, scale_factor=4.),
                nn.functional.interpolate(whole, scale_factor=2.), whole,
                nn.functional.max_pool2d(whole, 2, ceil_mode=True))


def test_patches_of_14_pixels_lie_where_they_are():
    detector, reader = Patches(), DenseFeatureReader('neck')
    reader.prepare(detector, 8)
    assert reader.extractor.featmap_strides == [3.5, 7, 14, 28]
    # A column of patches at 560 pixels; strides of 16 would look at 640.
    image = torch.zeros(1, 3, 224, 896)
    image[..., 560:574] = 1
    reader.projection = None
    rois = torch.tensor([[0., 560, 0, 574, 224], [0., 640, 0, 656, 224]])
    found = read_regions(reader, detector,
                         reader.extract_feat(detector, image), rois)
    assert found[0].min() > .9 and found[1].max() == 0


def test_encoder_maps_are_the_decoders_memory(build, detr_cfg, make):
    model = build(detr_cfg).eval()
    detector = model.detector
    seen = []
    handle = detector.encoder.register_forward_hook(
        lambda module, args, output: seen.append(output))
    data = model.data_preprocessor.preprocessor(
        make['collate'](make['box'](0)), False)
    detector.predict(data['inputs'], data['data_samples'])
    handle.remove()
    feats = model.region_reader.extract_feat(detector, data['inputs'],
                                             data['data_samples'])
    maps = encoder_maps(detector, feats)
    assert [m.shape for m in maps] == [(1, 16, 8, 8), (1, 16, 4, 4)]
    torch.testing.assert_close(
        torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2), seen[0])
    # Proposals go on from there, and are what they are without.
    runs = []
    detector.encoder.register_forward_hook(lambda *args: runs.append(args))
    after, = model.region_reader.propose(detector, feats)
    assert not runs
    feats.seen.clear()
    alone, = model.region_reader.propose(detector, feats)
    assert len(runs) == 1
    torch.testing.assert_close(after.bboxes, alone.bboxes)
    torch.testing.assert_close(after.scores, alone.scores)


@pytest.mark.parametrize('name', ['fcos', 'detr'])
def test_proposals_are_predictions_without_classes(request, build, make, name):
    detector = request.getfixturevalue(f'{name}_cfg')
    model = build(detector).train()
    data = model.data_preprocessor(
        make['collate'](make['mosaic'](0), make['mosaic'](1)), True)
    inputs = data['inputs']['mosaic']
    samples = data['data_samples']['mosaic']
    modes = [m.training for m in model.modules()]
    feats = model.region_reader.extract_feat(model.detector, inputs, samples)
    found = model.region_reader.propose(model.detector, feats)
    assert modes == [m.training for m in model.modules()]
    assert len(found) == 2
    for proposals in found:
        assert 0 < len(proposals) <= 20
        assert (proposals.scores.diff() <= 0).all()
        assert not proposals.bboxes.requires_grad
        assert proposals.bboxes.max() <= 64
    # The samples keep what they had.
    assert 'pred_instances' not in samples[0]


def test_proposals_of_a_detector_that_takes_off_a_border(make):
    """CenterNet: its own pipeline tells the padding, a mosaic has none."""
    register_all_modules()
    detector = MODELS.build(
        ConfigDict(
            type='mmdet.CenterNet',
            backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4),
            neck=dict(
                type='mmdet.CTResNetNeck',
                in_channels=32,
                num_deconv_filters=(8, 8, 8),
                num_deconv_kernels=(4, 4, 4),
                use_dcn=False),
            bbox_head=dict(
                type='mmdet.CenterNetHead',
                num_classes=5,
                in_channels=8,
                feat_channels=8),
            test_cfg=dict(topk=20, local_maximum_kernel=3,
                          max_per_img=20))).eval()
    reader = build_region_reader(None, detector, 8)
    _, sample = make['mosaic'](0)
    feats = reader.extract_feat(detector, torch.randn(1, 3, 64, 64), [sample])
    found, = reader.propose(detector, feats)
    own = DetDataSample(
        metainfo=dict(
            sample.metainfo,
            batch_input_shape=(64, 64),
            border=[0., 64., 0., 64.]))
    with torch.no_grad():
        own, = detector.predict(feats.inputs, [own], rescale=False)
    assert len(found) > 0 and 'border' not in sample
    scores, order = own.pred_instances.scores.sort(descending=True)
    torch.testing.assert_close(found.scores[0], scores[0])
    torch.testing.assert_close(found.bboxes[0],
                               own.pred_instances.bboxes[order[0]])


def test_nothing_and_one_region(build, fcos_cfg):
    model = build(fcos_cfg)
    feats = model.region_reader.extract_feat(model.detector,
                                             torch.randn(2, 3, 64, 96))
    parts = model.region_reader, model.detector, feats
    torch.testing.assert_close(
        read_regions(*parts, ROIS[1:2])[0],
        read_regions(*parts, ROIS)[1])
    empty = read_regions(*parts, ROIS[:0])
    assert empty.shape == (0, 8)
    empty.sum().backward()


def test_a_two_stage_detector_without_text(detector_cfg):
    detector_cfg['roi_head']['bbox_head'] = dict(
        type='mmdet.BBoxHead', in_channels=16, roi_feat_size=4, num_classes=5)
    detector = MODELS.build(detector_cfg)
    reader = build_region_reader(None, detector, 8)
    assert isinstance(reader, DenseFeatureReader)
    assert reader.source == 'neck'
    feats = reader.extract_feat(detector, torch.randn(1, 3, 64, 64))
    boxes = bbox2roi([torch.tensor([[0., 0., 64., 64.]])])
    assert read_regions(reader, detector, feats, boxes).shape == (1, 8)


def test_a_detector_that_lies_on_another_device(fcos_cfg):
    """On PyTorch's meta device, as there may be no GPU."""
    detector = MODELS.build(fcos_cfg).to('meta')
    reader = DenseFeatureReader('neck')
    reader.prepare(detector, 8)
    assert reader.extractor.featmap_strides == [8, 16, 32, 64]
    assert reader.projection.weight.shape == (8, 8)
    assert reader.projection.weight.device.type == 'meta'


@pytest.mark.parametrize('name, source', [
    ('fcos', 'classifier'),
    ('fcos', 'neck'),
    ('detr', 'encoder'),
])
def test_the_probe_leaves_no_trace(request, name, source):
    """Though in training the norms would learn, and the dropout draw."""
    cfg = request.getfixturevalue(f'{name}_cfg')
    if name == 'detr':
        cfg.encoder.layer_cfg.ffn_cfg.ffn_drop = .5
    detector = MODELS.build(cfg).train()
    # Else level_embed is whatever the memory held.
    detector.init_weights()
    detector.backbone.layer1.eval()
    modes = [m.training for m in detector.modules()]
    learned = [p.requires_grad for p in detector.parameters()]
    state = copy.deepcopy(detector.state_dict())
    reader = DenseFeatureReader(source)
    torch.manual_seed(0)
    reader.prepare(detector, 8)
    random = torch.get_rng_state()
    torch.manual_seed(0)
    if source != 'classifier':
        # All that was drawn is the projection's start.
        expected = nn.Linear(reader.projection.in_features, 8)
        assert torch.equal(reader.projection.weight, expected.weight)
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [m.training for m in detector.modules()]
    assert learned == [p.requires_grad for p in detector.parameters()]
    assert all(p.grad is None for p in detector.parameters())
    after = detector.state_dict()
    assert list(after) == list(state)
    for key, value in state.items():
        assert torch.equal(after[key], value), key


def test_modes_come_back_where_the_probe_fails(fcos_cfg):
    fcos_cfg['neck']['in_channels'] = [4, 9, 16, 32]
    detector = MODELS.build(fcos_cfg).train()
    detector.backbone.layer1.eval()
    modes = [m.training for m in detector.modules()]
    with pytest.raises(RuntimeError, match='channels'):
        DenseFeatureReader('neck').prepare(detector, 8)
    assert modes == [m.training for m in detector.modules()]


@pytest.mark.parametrize('source, message', [
    ('classifier', 'ZeroShotHead'),
    ('encoder', 'DETR-like'),
])
def test_a_source_that_is_not_there(detector_cfg, source, message):
    detector = MODELS.build(detector_cfg)
    with pytest.raises(TypeError, match=message):
        build_region_reader(
            dict(type='mmdet_clim.DenseFeatureReader', source=source),
            detector, 8)


@pytest.mark.parametrize(
    'width, stride',
    [
        (112, 8),
        (113, 8),  # of a backbone that pads
        (14, 64),
        (64, 14),  # patches of 14 pixels
        (32, 28),
    ])
def test_strides_of_maps(width, stride):
    assert _stride(width) == stride


def test_an_unknown_source():
    with pytest.raises(ValueError, match="'classifier', 'encoder', 'neck'"):
        DenseFeatureReader(source='head')


QUERY = dict(type='mmdet_clim.DenseFeatureReader', source='query')


def test_a_query_is_what_its_box_is_scored_by(build, detr_cfg, make):
    """Of the second image too, which is padded."""
    model = build(detr_cfg, region_reader=QUERY).eval()
    detector, reader = model.detector, model.region_reader
    images = torch.randn(2, 3, 64, 96)
    images[1, :, 48:] = images[1, :, :, 64:] = 0
    samples = [
        DetDataSample(metainfo=dict(img_shape=shape))
        for shape in [(64, 96), (48, 64)]
    ]
    feats = reader.extract_feat(detector, images, samples)
    stage, = reader.stages(detector, feats)
    runs = []
    detector.decoder.register_forward_hook(lambda *args: runs.append(args))
    found = reader.propose(detector, feats)
    assert not runs  # the decoder's output is there
    classifier = detector.bbox_head.cls_branches[-1]
    for index, (image, sample) in enumerate(zip(images, samples)):
        size = sample.img_shape
        alone = DetDataSample(metainfo=dict(img_shape=size))
        alone.set_metainfo(dict(batch_input_shape=size))
        expected, = detector.predict(
            image[None, :, :size[0], :size[1]], [alone], rescale=False)
        expected = expected.pred_instances
        best = expected.bboxes[expected.scores.argmax()]
        torch.testing.assert_close(
            found[index].bboxes[0], best, rtol=1e-3, atol=1e-2)
        roi = torch.cat([best.new_tensor([index]), best])[None]
        scores = classifier.score(stage.read(roi)).sigmoid()
        torch.testing.assert_close(
            scores.max(), expected.scores.max(), rtol=1e-3, atol=1e-5)
    assert stage.read(torch.zeros(0, 5)).shape == (0, 8)


def test_texts_reach_what_names_boxes(build, detr_cfg, batch):
    """By queries they do, by the encoder's map not; the decoder runs once."""
    encoder = dict(QUERY, source='encoder')
    for reader, reaches in ((None, True), (encoder, False)):
        model = build(detr_cfg, region_reader=reader).train()
        runs = []
        model.detector.decoder.register_forward_hook(
            lambda *args, runs=runs: runs.append(args))
        data = model.data_preprocessor(batch, True)
        losses = model.branch_loss('mosaic', data['inputs']['mosaic'],
                                   data['data_samples']['mosaic'])
        sum(v for k, v in losses.items() if 'loss' in k).backward()
        layer = model.detector.bbox_head.cls_branches[-1].projection
        decoder = model.detector.decoder.layers[-1].cross_attn.value_proj
        for weight in (layer.weight, decoder.weight):
            assert (weight.grad is not None
                    and bool(weight.grad.any())) == reaches
        assert len(runs) == 1


def test_texts_of_another_space(build, detr_cfg, texts_file, tmp_path):
    """The error says how such a model is built: read by a projection."""
    texts = torch.load(texts_file)
    file = tmp_path / 'others.pth'
    torch.save(dict(texts, vectors=-texts['vectors']), file)
    other = dict(type='mmdet_clim.PrecomputedTextEncoder', file=str(file))
    with pytest.raises(ValueError, match="same embeddings.*source='neck'"):
        build(detr_cfg, text_encoder=other)
    neck = dict(QUERY, source='neck')
    model = build(detr_cfg, text_encoder=other, region_reader=neck)
    assert model.region_reader.projection is not None


def test_queries_of_a_detector_that_has_none(build, detr_cfg, fcos_cfg):
    closed = copy.deepcopy(detr_cfg)
    closed.bbox_head = dict(closed.bbox_head.head, num_classes=5)
    for detector in (closed, fcos_cfg):
        with pytest.raises(TypeError, match="source='query'.* needs a DETR-"):
            build(detector, region_reader=QUERY)
