# Licensed under the Apache License, Version 2.0.
"""Recipes of BARON, two iterations each on OpenMoji's data.

Of the configs' own: data, losses, objectives, heads and schedule. Smaller:
images, batches, channels, RoIs; CLIP is one of its name and width, batch norms
are of one process.
"""
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_clim  # noqa: F401
from mmdet_clim.datasets.openmoji import DatasetParameters, build_dataset
from mmdet_clim.engine.runner import CLIMRunner

CLIP = 'ViT-B-32-quickgelu'
WIDTH = 32  # of its words here
SMALL_CLIP = 'configs/openmoji/open_clip_small.json'
C4, FPN = 'ov_coco/baron_r50-caffe-c4', 'ov_coco/baron_r50-fpn-syncbn'
LVIS = 'ov_lvis/baron_mask-rcnn_r50-fpn-syncbn'
BAG, CROPS, MOSAIC = ('captions.bag', 'boxes.distillation', 'mosaic.bag')
# Losses beside the detector's own.
OBJECTIVES = {
    'base': [],
    'captions': [BAG],
    'captions_clim': [BAG, MOSAIC],
    'distillation': [CROPS],
    'distillation_clim': [CROPS, MOSAIC],
    'captions-distillation': [BAG, CROPS],
    'captions-distillation_clim': [BAG, CROPS, MOSAIC],
}
# One of each kind: the others are made of the same parts.
RECIPES = [(name.format(kind), OBJECTIVES[kind]) for name, kinds in (
    (f'{C4}_90k_ov-coco_{{}}', ('captions-distillation_clim', )),
    (f'{FPN}_90k_ov-coco_{{}}', ('base', 'captions-distillation')),
    (f'{FPN}_45k_ov-coco_{{}}', ('distillation_clim', )),
    (f'{LVIS}_45k_ov-lvis_{{}}', ('captions_clim', 'distillation')),
) for kind in kinds]


class RecordLosses(Hook):
    """The losses of each iteration."""

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, *args, outputs=None, **kwargs):
        self.losses.append({k: v.item() for k, v in outputs.items()})


@pytest.fixture(scope='module')
def files(openmoji_root, repository, small_clips, tmp_path_factory):
    """The environment variables of the configs, set to files made here."""
    import open_clip  # after mmdet_clim, which prepares for it

    from mmdet_clim.models.open_clip_models import model_name
    folder = tmp_path_factory.mktemp('files')
    lvis = folder / 'lvis'
    build_dataset(
        lvis,
        DatasetParameters(
            train=24, val=4, captioned=24, seed=0, size=96, vocabulary='lvis'),
        workers=1)
    small = dict(
        embed_dim=512,
        quick_gelu=True,
        vision_cfg=dict(
            image_size=32, layers=1, width=32, patch_size=16, head_width=16),
        text_cfg=dict(
            context_length=77,
            vocab_size=49408,
            width=WIDTH,
            heads=2,
            layers=1))
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch, small_clips(
            folder / 'models', {CLIP: small}):
        torch.save(
            open_clip.create_model(CLIP).state_dict(), folder / 'clip.pt')
        patch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
        patch.setenv('OV_COCO_ROOT', f'{openmoji_root}/')
        patch.setenv('OV_LVIS_ROOT', f'{lvis}/')
        patch.setenv('CC3M_ROOT', f'{lvis}/')
        patch.setenv('CC3M_CAPTIONS',
                     'annotations/captions_captioned2017_tags.json')
        patch.setenv('CC3M_IMAGES', 'captioned2017/')
        patch.setenv('CLIP_VIT_B_32', str(folder / 'clip.pt'))
        small = model_name(str(repository / SMALL_CLIP))
        torch.save(
            open_clip.create_model(small).state_dict(), folder / 'small.pt')
        patch.setenv('OPENMOJI_CLIP', str(folder / 'small.pt'))
        yield folder


def shrink_images(node):
    """A sixth of every size in pixels, in every pipeline of a config."""
    if isinstance(node, dict):
        for key in ('scale', 'crop_size', 'tile_size', 'out_size'):
            if key in node:
                node[key] = tuple(side // 6 for side in node[key])
        if 'scales' in node:
            node['scales'] = [(w // 6, h // 6) for w, h in node['scales']]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            shrink_images(value)


def small_config(repository, name, source_ratio):
    """A config with small images, batches and channels, two iterations."""
    cfg = Config.fromfile(repository / f'configs/baron/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        shrink_images(loader.dataset)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_dataloader.batch_size = max(2, sum(source_ratio))
    if len(source_ratio) > 1:
        cfg.train_dataloader.sampler.source_ratio = source_ratio
    shrink_detector(cfg.model.get('detector', cfg.model))
    for objective in cfg.model.get('objectives', {}).values():
        objective.bags.word_dim = WIDTH
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.load_from = None
    cfg.visualizer.name = name.replace('/', '_')
    return cfg


def shrink_detector(detector):
    """A ResNet-18 of 4 channels, 16 elsewhere, few RoIs, one prompt."""
    backbone, roi_head = detector.backbone, detector.roi_head
    roi_head.bbox_head.classifier.templates = ('a photo of {article} {}.', )
    backbone.update(depth=18, base_channels=4, init_cfg=None)
    if 'neck' in detector:
        detector.neck.update(in_channels=[4, 8, 16, 32], out_channels=16)
        channels = 16
        roi_head.bbox_head.update(
            in_channels=16, conv_out_channels=16, fc_out_channels=32)
    else:
        # mmdet's fourth stage has its own width, that of a full ResNet.
        roi_head.shared_head.update(depth=18, init_cfg=None)
        backbone.update(base_channels=64)
        channels = 256
        roi_head.bbox_head.in_channels = 512
    detector.rpn_head.update(in_channels=channels, feat_channels=channels)
    roi_head.bbox_roi_extractor.out_channels = channels
    if 'mask_head' in roi_head:
        roi_head.mask_roi_extractor.out_channels = 16
        roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    detector.train_cfg.rpn_proposal.max_per_img = 32
    detector.train_cfg.rcnn.sampler.num = 8
    detector.test_cfg.rpn.max_per_img = 8
    detector.test_cfg.rcnn.score_thr = 0.


@pytest.mark.parametrize(
    'name, expected', RECIPES, ids=[row[0] for row in RECIPES])
def test_two_iterations(files, repository, tmp_path, name, expected):
    ratio = [1] * (1 + (BAG in expected) + (MOSAIC in expected))
    cfg = small_config(repository, name, ratio)
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    record = RecordLosses()
    runner.register_hook(record)
    runner.train()
    names = {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'}
    names |= {f'{of}.loss' for of in expected}
    if CROPS in expected:
        names.add(f'{CROPS}.object_loss')
    if 'lvis' in name:
        names.add('loss_mask')
    assert len(record.losses) == 2
    for losses in record.losses:
        parts = {k: v for k, v in losses.items() if 'loss' in k}
        total = parts.pop('loss')
        assert set(parts) == names
        assert all(0 <= v < 1000 for v in parts.values()), parts
        assert total == pytest.approx(sum(parts.values()), rel=1e-4)
    # Of one bag alone, in the first step, there is nothing to tell apart.
    assert all(record.losses[1][f'{of}.loss'] > 0 for of in expected)
    metric = 'val/ov_lvis/mask_ap' if 'lvis' in name else \
        'val/ov_coco/novel_ap50'
    assert 0 <= runner.message_hub.log_scalars[metric].current() < 20
    if expected:
        model = runner.model
        assert not [k for k in model.state_dict() if 'encoder' in k]
        for objective in model.objectives.values():
            queues = objective.contrast
            assert queues.bag_queue.size == queues.text_queue.size == 1024
            assert len(queues.bag_queue) > 0 and len(queues.text_queue) > 0


@pytest.mark.parametrize('name, ratio, expected, width', [
    ('boxes', None, [], 384),
    ('captions-tags_clim_best_softmax', [1, 1, 1],
     [BAG, MOSAIC, 'captions.tag', 'mosaic.tag'], 384),
    ('captions-distillation', [1, 1], [BAG, CROPS], 64),
])
def test_openmoji(files, repository, tmp_path, name, ratio, expected, width):
    """As they are, from the shipped base detector, on few images."""
    cfg = Config.fromfile(repository /
                          f'configs/openmoji/baron_r18-c4_256_{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    if ratio:
        cfg.train_dataloader.batch_size = sum(ratio)
        cfg.train_dataloader.sampler.source_ratio = ratio
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.work_dir = str(tmp_path)
    cfg.visualizer.name = f'openmoji_{name}'
    base = torch.load(cfg.load_from)['state_dict']
    runner = CLIMRunner.from_cfg(cfg)  # as tools/train.py: weights must fit
    record = RecordLosses()
    runner.register_hook(record)
    runner.train()
    names = {f'{of}.loss' for of in expected}
    if CROPS in expected:
        names.add(f'{CROPS}.object_loss')
    for losses in record.losses:
        assert {k for k in losses if '.' in k and 'loss' in k} == names
        assert all(0 <= v < 200 for k, v in losses.items() if 'loss' in k)
    # All went on from the base detector but the layer to the words.
    state = runner.model.state_dict()
    prefix = 'detector.' if expected else ''
    for key, value in base.items():
        own = state[prefix + key]
        if 'fc_cls.projection' in key:
            assert len(own) == 2 * width and len(value) == 384
        else:
            torch.testing.assert_close(
                own, value.to(own), rtol=.05, atol=.05, msg=key)
    metric = runner.message_hub.log_scalars['val/ov_coco/base_ap50']
    assert 0 <= metric.current() < 20
