# Licensed under the Apache License, Version 2.0.
"""BARON's recipes against what is published of them.

The tables are written by hand from REFERENCE.md, section 3, and the lists of
names and shapes of the published checkpoints. What they do not say, and what
differs on purpose, is in docs/published.md.
"""
import pytest
from mmengine.config import Config

import mmdet_clim  # noqa: F401

C4, FPN = 'ov_coco/baron_r50-caffe-c4', 'ov_coco/baron_r50-fpn-syncbn'
LVIS = 'ov_lvis/baron_mask-rcnn_r50-fpn-syncbn'
HEAD = 'detector.roi_head.bbox_head'
WORDS = {
    # A residual stream before the last norm and projection, of CLIP ViT-B/32.
    f'{HEAD}.classifier.text_encoder.model': 'ViT-B-32-quickgelu',
    f'{HEAD}.classifier.text_encoder.before_projection': True,
    f'{HEAD}.classifier.drop_prob': .5,
    # An MLP that regresses boxes of no class.
    f'{HEAD}.reg_class_agnostic': True,
    f'{HEAD}.reg_predictor_cfg.type': 'mmdet_clim.MLPRegressor',
    'text_encoder.model': 'ViT-B-32-quickgelu',
    'text_encoder.before_projection': None,
}
SIGMOID = {
    f'{HEAD}.classifier.type': 'mmdet_clim.PseudoWordClassifier',
    f'{HEAD}.classifier.num_words': 4,
    f'{HEAD}.classifier.temperature': 25,
    f'{HEAD}.classifier.bias': -20,
}
SOFTMAX = {
    f'{HEAD}.classifier.type': 'mmdet_clim.SoftmaxPseudoWordClassifier',
    f'{HEAD}.classifier.temperature': 50,
    f'{HEAD}.classifier.bias': None,
    f'{HEAD}.loss_cls.type': 'mmdet_clim.BaseClassSoftmaxLoss',
    f'{HEAD}.loss_cls.background_weight': .7,
}
BAG = {
    'branches.captions': ['bag'],
    'objectives.bag.bags.word_dim': 512,
    'objectives.bag.bags.num_orders': 4,
    'objectives.bag.bags.drop_prob': .5,
    'objectives.bag.max_captions': None,  # all
    'objectives.bag.proposals.max_considered': 128,
    'objectives.bag.proposals.max_aspect': 4,
    'objectives.bag.proposals.min_area': .01,
    'objectives.bag.proposals.min_score': .85,
    'objectives.bag.proposals.nms_iou': .2,
    'objectives.bag.proposals.max_objects': 10,
    'objectives.bag.queue.size': 1024,
    'objectives.bag.loss.kind': 'infonce',
    'objectives.bag.loss.temperature': 30,
    'objectives.bag.loss.loss_weight': 10,
}
DISTILLATION = {
    'branches.boxes': ['distillation'],
    'objectives.distillation.interval': -.1,
    'objectives.distillation.base_prob': .3,
    'objectives.distillation.alpha': 3,
    'objectives.distillation.cut_off': .3,
    'objectives.distillation.num_groups': 3,
    'objectives.distillation.bags.num_orders': 2,
    'objectives.distillation.proposals.max_considered': 300,
    'objectives.distillation.proposals.nms_iou': .1,
    'objectives.distillation.proposals.max_objects': None,  # all
    'objectives.distillation.loss.kind': 'infonce',
    'objectives.distillation.loss.temperature': 30,
    'objectives.distillation.loss.loss_weight': 1,
    'objectives.distillation.object_loss.kind': 'infonce',
    'objectives.distillation.object_loss.temperature': 50,
    'objectives.distillation.object_loss.loss_weight': .1,
}
PYRAMID = {
    **SOFTMAX,
    'norm_eval': False,
    'detector.backbone.frozen_stages': -1,
    'detector.backbone.norm_cfg.type': 'SyncBN',
    'detector.backbone.norm_eval': False,
    'detector.backbone.init_cfg.checkpoint':
    'checkpoints/res50_fpn_soco_star_400.pth',
    'detector.neck.norm_cfg.type': 'SyncBN',
    f'{HEAD}.norm_cfg': dict(type='SyncBN', requires_grad=False),
}
ONE_STAGE = {'train_cfg.max_iters': 90000, 'load_from': None}
PLAIN_C4 = {
    'optim_wrapper.optimizer.lr': .02,
    'scales': [(1333, 800)],
    'detector.backbone.frozen_stages': 1,
}
ON_16 = {
    'optim_wrapper.optimizer.lr': .04,
    'optim_wrapper.optimizer.weight_decay': 2.5e-5,
    'auto_scale_lr.base_batch_size': 32,
    'train_cfg.max_iters': 90000,
    'load_from': None,
}
TOWER = {
    'detector.rpn_head.type': 'mmdet_clim.ObjectnessTowerRPNHead',
    f'{HEAD}.classifier.num_words': 6,
}
RECIPES = {
    f'{C4}_90k_ov-coco_captions': {
        **WORDS,
        **SIGMOID,
        **BAG,
        **ONE_STAGE,
        **PLAIN_C4,
        'objectives.bag.bags.num_words': 4,
        'train_dataloader.sampler.source_ratio': [2, 2],
        'captions.scales': [(1333, 800)],
    },
    f'{C4}_90k_ov-coco_distillation': {
        **WORDS,
        **SOFTMAX,
        **DISTILLATION,
        **ONE_STAGE,
        **PLAIN_C4,
        f'{HEAD}.classifier.num_words': 4,
        'objectives.distillation.bags.num_words': 4,
        'train_dataloader.batch_size': 2,
    },
    f'{C4}_90k_ov-coco_captions-distillation': {
        **WORDS,
        **SIGMOID,
        **BAG,
        **DISTILLATION,
        **ONE_STAGE,
        **PLAIN_C4,
        'train_dataloader.sampler.source_ratio': [2, 2],
    },
    # CLIM on them: mosaics beside the images that were there.
    f'{C4}_90k_ov-coco_captions_clim': {
        **WORDS,
        **SIGMOID,
        **BAG,
        **ONE_STAGE,
        'branches.mosaic': ['bag'],
        'train_dataloader.sampler.source_ratio': [2, 2, 2],
    },
    f'{FPN}_90k_ov-coco_distillation': {
        **WORDS,
        **PYRAMID,
        **TOWER,
        **DISTILLATION,
        **ON_16,
        'objectives.distillation.bags.num_words': 6,
        'scales': [(1333, side) for side in range(640, 801, 32)],
    },
    f'{FPN}_90k_ov-coco_captions': {
        **WORDS,
        **PYRAMID,
        **TOWER,
        **BAG,
        'objectives.bag.bags.num_words': 6,
    },
    f'{LVIS}_45k_ov-lvis_distillation': {
        **WORDS,
        **PYRAMID,
        **DISTILLATION,
        'detector.rpn_head.type': 'RPNHead',
        f'{HEAD}.classifier.num_words': 4,
        'objectives.distillation.bags.num_words': 4,
        'detector.roi_head.mask_head.class_agnostic': True,
        'train_cfg.max_iters': 45000,
        'load_from': None,
    },
}


def value_at(node, path):
    """What a config holds at a path, None where it holds nothing."""
    for key in path.split('.'):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def scales_of(pipeline):
    """The sizes to which a pipeline may scale an image."""
    for transform in pipeline:
        if transform['type'].endswith('Resize'):
            return [
                tuple(s)
                for s in transform.get('scales') or [transform['scale']]
            ]


@pytest.fixture(scope='module')
def configs(repository):
    """All recipes, each read once."""
    folder = repository / 'configs/baron'
    with pytest.MonkeyPatch.context() as patch:
        for variable in ('SOCO_RESNET50', 'CLIP_VIT_B_32'):
            patch.delenv(variable, raising=False)
        return {
            f'{file.parent.name}/{file.stem}': Config.fromfile(file)
            for file in sorted(folder.glob('ov_*/*.py'))
        }


@pytest.mark.parametrize('name', RECIPES)
def test_published_constants(configs, name):
    cfg = dict(configs[name].items())
    found = {}
    for path in RECIPES[name]:
        of_model = path.split('.')[0] in ('detector', 'objectives', 'branches',
                                          'text_encoder', 'norm_eval')
        found[path] = value_at(cfg['model'] if of_model else cfg, path)
    data = cfg['train_dataloader'].dataset
    sources = data.get('datasets', [data])
    for key, source in (('scales', 0), ('captions.scales', 1)):
        if key in found:
            found[key] = scales_of(sources[source].pipeline)
    assert found == RECIPES[name]


def test_every_recipe_has_its_parts(configs):
    """Its name says what branches it has, and every source has a share."""
    for name, cfg in configs.items():
        kind = name.rpartition('_ov-')[2].partition('_')[2]
        wanted = {}
        if 'captions' in kind:
            wanted['captions'] = ['bag']
        if 'distillation' in kind:
            wanted['boxes'] = ['distillation']
        if 'clim' in kind:
            wanted['mosaic'] = ['bag']
        assert dict(cfg.model.get('branches', {})) == wanted, name
        count = len(cfg.train_dataloader.dataset.get('datasets', [0]))
        assert count == 1 + len(set(wanted) - {'boxes'}), name
        ratio = cfg.train_dataloader.sampler.get('source_ratio')
        if ratio:
            assert len(ratio) == count, name
            assert sum(ratio) == cfg.train_dataloader.batch_size, name
        detector = cfg.model.get('detector', cfg.model)
        num_words = detector.roi_head.bbox_head.classifier.num_words
        for objective in cfg.model.get('objectives', {}).values():
            assert objective.bags.num_words == num_words, name
