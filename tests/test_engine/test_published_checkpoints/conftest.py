# Licensed under the Apache License, Version 2.0.
"""Our detectors with few channels and the published depth."""
import importlib.util

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS

import mmdet_clim  # noqa: F401

CLASSES = ['cat', 'dog', 'cow', 'bus', 'cup']
DIM = 8
CONFIGS = dict(
    c4='ov_coco/detic_r50-caffe-c4_90k_ov-coco_base.py',
    r50='ov_lvis/detic_r50-centernet2_90k_ov-lvis_base.py',
    swin='ov_lvis/detic_swin-b-centernet2_90k_ov-lvis_base.py')


@pytest.fixture(scope='module')
def convert(repository):
    """``convert(*words)``: the command."""
    path = repository / 'tools' / 'checkpoints' / 'convert_published.py'
    spec = importlib.util.spec_from_file_location('convert_published', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.main([*map(str, args)])


@pytest.fixture(scope='module')
def small_configs(repository, tmp_path_factory):
    """A config of each published detector: few channels."""
    # mmdet names the parts of its heads without a scope.
    register_all_modules()
    file = tmp_path_factory.mktemp('texts') / 'texts.pth'
    torch.manual_seed(0)
    torch.save(
        dict(names=CLASSES, vectors=torch.randn(len(CLASSES), DIM)), file)
    configs = {}
    for kind, path in CONFIGS.items():
        cfg = Config.fromfile(repository / 'configs/detic' / path)
        heads = cfg.model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.vocabulary = CLASSES
            # `update` would merge it with the config's encoder.
            head.classifier.text_encoder = dict(
                type='mmdet_clim.PrecomputedTextEncoder', file=str(file))
            head.classifier.templates = ('{}', )
        (narrow_c4 if kind == 'c4' else narrow_centernet2)(cfg.model)
        # What a whole config holds beside it are data and schedules.
        configs[kind] = Config(
            dict(model=cfg.model, default_scope='mmdet'),
            filename=cfg.filename)
    return configs


def narrow_c4(model):
    """ResNet-50 of 16 channels; its fourth layer is mmdet's second."""
    model.backbone.update(base_channels=16, init_cfg=None)
    model.rpn_head.update(in_channels=256, feat_channels=16)
    model.roi_head.shared_head.update(stage=1, init_cfg=None)
    model.roi_head.bbox_roi_extractor.out_channels = 256
    model.roi_head.bbox_head.in_channels = 512
    model.test_cfg.rpn.max_per_img = 8


def narrow_centernet2(model):
    """Backbones of 4 channels, 16 in all heads."""
    if model.backbone.type == 'mmdet.ResNet':
        model.backbone.update(base_channels=4, init_cfg=None)
        channels = [16, 32, 64, 128]
    else:
        model.backbone.update(
            embed_dims=4, num_heads=[1, 1, 2, 2], init_cfg=None)
        channels = [4, 8, 16, 32]
    model.neck.update(in_channels=channels, out_channels=16)
    model.rpn_head.update(
        in_channels=16,
        feat_channels=16,
        norm_cfg=dict(type='GN', num_groups=4))
    roi_head = model.roi_head
    for extractor in (roi_head.bbox_roi_extractor,
                      roi_head.mask_roi_extractor):
        extractor.out_channels = 16
    for head in roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32)
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    model.test_cfg.rpn.max_per_img = 8
    model.test_cfg.rcnn.score_thr = 0.


@pytest.fixture(scope='module')
def build(small_configs):
    """``build(kind, seed)``: a detector whose every number is random."""

    def build_one(kind, seed=0):
        model = MODELS.build(small_configs[kind].model).eval()
        generator = torch.Generator().manual_seed(seed)
        for name, value in model.state_dict().items():
            if name.endswith('running_var'):
                value.uniform_(.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, .1, generator=generator)
        return model

    return build_one


@pytest.fixture(scope='module')
def detectors(build):
    """One of each, which no test changes."""
    return {kind: build(kind) for kind in CONFIGS}


def rename(name, pairs):
    """Replace parts of a name, one after the other."""
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name


def official_merging(weight):
    """mmdet's input channel c * 4 + 2 * row + column, block by block.

    The official Swin joins the pixels (row, column) of a patch in the order
    (0, 0), (1, 0), (0, 1), (1, 1), each with all of its channels.
    """
    channels = range(weight.shape[-1] // 4)
    order = [
        4 * c + 2 * row + column
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)) for c in channels
    ]
    return weight[..., order]


def detectron2_anchors():
    """Anchors (15, 4) of Detectron2's C4 models, by its documentation."""
    return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2]
                         for size in (32, 64, 128, 256, 512)
                         for ratio in (.5, 1., 2.) for w in [size / ratio**.5]
                         for h in [w * ratio]])


def by_detectron2_anchors(weight, model):
    """Reorder the first dimension by looking for each of its anchors."""
    ours = model.rpn_head.prior_generator.base_anchors[0]
    order = [(ours - anchor).abs().sum(1).argmin().item()
             for anchor in detectron2_anchors()]
    assert sorted(order) == list(range(15)) and order[:3] == [0, 5, 10]
    return torch.cat([weight.chunk(15)[index] for index in order])


RESNET = [(f'bn{n}.', f'conv{n}.norm.') for n in (1, 2, 3)] + [
    ('downsample.0.', 'shortcut.'), ('downsample.1.', 'shortcut.norm.'),
    ('backbone.conv1.', 'backbone.stem.conv1.')
] + [(f'backbone.layer{n}', f'backbone.res{n + 1}') for n in (1, 2, 3, 4)]
SWIN = [('patch_embed.projection', 'patch_embed.proj'),
        ('backbone.stages', 'backbone.layers'), ('attn.w_msa', 'attn'),
        ('ffn.layers.0.0', 'mlp.fc1'), ('ffn.layers.1', 'mlp.fc2')]
NECK = [(f'neck.lateral_convs.{n}.conv', f'backbone.fpn_lateral{n + 3}')
        for n in (0, 1, 2)] + [
            (f'neck.fpn_convs.{n}.conv', f'backbone.fpn_output{n + 3}')
            for n in (0, 1, 2)
        ] + [(f'neck.fpn_convs.{n}.conv', f'backbone.top_block.p{n + 3}')
             for n in (3, 4)]
CENTERNET = [
    pair for n in range(4)
    for pair in ((f'reg_convs.{n}.conv', f'bbox_tower.{3 * n}'),
                 (f'reg_convs.{n}.gn', f'bbox_tower.{3 * n + 1}'))
] + [('conv_reg', 'bbox_pred'), ('conv_cls', 'agn_hm'),
     ('rpn_head', 'proposal_generator.centernet_head')]
RPN = [('rpn_conv', 'conv'), ('rpn_cls', 'objectness_logits'),
       ('rpn_reg', 'anchor_deltas'),
       ('rpn_head', 'proposal_generator.rpn_head')]
BOX = [('fc_cls.projection', 'cls_score.linear'),
       ('fc_cls.logit_bias', 'cls_score.cls_bias'),
       ('fc_reg.hidden', 'bbox_pred.0'), ('fc_reg.out', 'bbox_pred.2'),
       ('roi_head.bbox_head', 'roi_heads.box_predictor')]
FC = [('shared_fcs.0', 'fc1'), ('shared_fcs.1', 'fc2'),
      ('roi_head.bbox_head', 'roi_heads.box_head')]
MASK = [(f'mask_head.0.convs.{n}.conv', f'mask_head.mask_fcn{n + 1}')
        for n in range(4)
        ] + [('mask_head.0.upsample', 'mask_head.deconv'),
             ('mask_head.0.conv_logits', 'mask_head.predictor'),
             ('roi_head.', 'roi_heads.')]


def detectron2_name(name, kind):
    """What Detic calls one of our weights."""
    part = name.split('.')[0]
    if part == 'neck':
        return rename(name, NECK)
    if part == 'rpn_head':
        return rename(name, RPN if kind == 'c4' else CENTERNET)
    if 'shared_head' in name:
        return rename(name, RESNET).replace('roi_head.shared_head.layer2',
                                            'roi_heads.res5')
    if part == 'roi_head':
        return rename(
            name, MASK
            if 'mask_head' in name else FC if 'shared_fcs' in name else BOX)
    if kind == 'swin':
        return rename(name, SWIN).replace('backbone', 'backbone.bottom_up')
    if name.startswith('backbone.bn1.'):
        name = name.replace('backbone.bn1', 'backbone.stem.conv1.norm')
    else:
        name = rename(name, RESNET)
    return name if kind == 'c4' else name.replace('backbone',
                                                  'backbone.bottom_up')


def detectron2_weights(model, kind):
    """A checkpoint of Detic with the weights of our detector."""
    weights = {}
    for name, value in model.state_dict().items():
        if 'num_batches_tracked' in name or 'backbone.norm0' in name:
            continue
        if 'downsample.' in name and kind == 'swin':
            value = official_merging(value)
        if 'rpn_cls' in name or 'rpn_reg' in name:
            value = by_detectron2_anchors(value, model)
        if name.endswith(('logit_bias', '.scale')):
            value = value.reshape(1)
        weights[detectron2_name(name, kind)] = value.clone()
    stages = [''] if kind == 'c4' else ['.0', '.1', '.2']
    for stage in stages:
        predictor = f'roi_heads.box_predictor{stage}'
        heads = model.roi_head.bbox_head
        head = heads if kind == 'c4' else heads[0]
        embeddings = head.fc_cls.class_embeddings
        weights[f'{predictor}.cls_score.zs_weight'] = torch.nn.functional.pad(
            embeddings.t(), (0, 1))
        weights[f'{predictor}.freq_weight'] = torch.ones(len(CLASSES))
    weights['pixel_mean'] = model.data_preprocessor.mean.clone()
    weights['pixel_std'] = model.data_preprocessor.std.clone()
    if kind == 'c4':
        weights['proposal_generator.anchor_generator.cell_anchors.0'] = \
            detectron2_anchors()
    return weights


def mmdet_weights(model, kind):
    """A checkpoint of mmdet's Detic with the weights of our detector."""
    pairs = [('fc_cls.projection', 'fc_cls.linear'),
             ('fc_cls.logit_bias', 'fc_cls.cls_bias'),
             ('fc_reg.hidden', 'fc_reg.0'), ('fc_reg.out', 'fc_reg.2'),
             ('mask_head.0', 'mask_head')]
    weights = {
        rename(name, pairs): value.clone()
        for name, value in model.state_dict().items()
        if 'backbone.norm0' not in name
    }
    for stage in range(3):
        weights[f'roi_head.bbox_head.{stage}.fc_cls.zs_weight'] = torch.ones(
            DIM,
            len(CLASSES) + 1)
    return weights


def ovdet_weights(model, kind):
    """A checkpoint of Detic's C4 in CLIM's code, of the weights of ours."""
    pairs = [('fc_cls.projection', 'fc_cls'),
             ('fc_cls.logit_bias', 'cls_bias'), ('fc_reg.hidden', 'fc_reg.0'),
             ('fc_reg.out', 'fc_reg.2')]
    weights = {}
    for name, value in model.state_dict().items():
        if 'rpn_cls' in name or 'rpn_reg' in name:
            value = by_detectron2_anchors(value, model)
        if name.endswith('logit_bias'):
            value = value.reshape(1)
        weights[rename(name, pairs)] = value.clone()
    head = 'roi_head.bbox_head'
    weights[f'{head}.cls_embeddings'] = \
        model.roi_head.bbox_head.fc_cls.class_embeddings.clone()
    weights[f'{head}.bg_embedding'] = torch.zeros(
        1, model.roi_head.bbox_head.fc_cls.class_embeddings.shape[1])
    weights['roi_head.detic_caption.bce_bias'] = torch.tensor([-7.])
    return weights


@pytest.fixture
def published(detectors):
    """``published(kind, source)``: such a checkpoint's weights."""

    def make(kind, source='detectron2'):
        write = dict(
            detectron2=detectron2_weights,
            mmdet=mmdet_weights,
            ovdet=ovdet_weights)
        return write[source](detectors[kind], kind)

    return make
