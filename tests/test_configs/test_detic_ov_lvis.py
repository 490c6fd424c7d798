# Licensed under the Apache License, Version 2.0.
"""The OV-LVIS recipes, two iterations each on OpenMoji's LVIS-like data.

Of the configs' own: data, losses, objectives, heads and schedule. Smaller:
images, batches, channels, RoIs; CLIP is one of its name and width.
"""
import copy
import math

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

R50, SWIN = 'detic_r50-centernet2', 'detic_swin-b-centernet2'
BASE = '90k_ov-lvis_base'
TAGS = ['captions.caption', 'captions.tag']
# Config, samples per source, losses beside the detector's own.
RECIPES = [
    (f'{R50}_{BASE}', None, []),
    (f'{SWIN}_{BASE}', None, []),
    (f'{R50}_45k_ov-lvis_captions', [2, 2], TAGS[:1]),
    (f'{R50}_45k_ov-lvis_captions-tags', [2, 2], TAGS),
    (f'{R50}_45k_ov-lvis_captions_clim', [2, 2,
                                          2], [TAGS[0], 'mosaic.caption']),
    (f'{R50}_45k_ov-lvis_captions-tags_clim', [2, 2, 2],
     [*TAGS, 'mosaic.caption', 'mosaic.tag']),
    (f'{R50}_45k_ov-lvis_captions-tags_clim_rare-tags', [2, 2, 2],
     [*TAGS, 'mosaic.caption', 'mosaic.tag']),
    (f'{R50}_45k_ov-lvis_captions-tags_clim_grid-schedule', [2, 2, 2],
     [*TAGS, 'mosaic.caption', 'mosaic.tag']),
    (f'{SWIN}_45k_ov-lvis_captions-tags_clim', [2, 2, 2],
     [*TAGS, 'mosaic.caption', 'mosaic.tag']),
]
SMALL = dict(
    ResNet=dict(depth=18, base_channels=4, init_cfg=None),
    SwinTransformer=dict(
        embed_dims=4,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        convert_weights=False,
        init_cfg=None))


@pytest.fixture(scope='module')
def openmoji_lvis(openmoji_lvis_root, clip_checkpoint):
    """The environment variables of the configs, set to files made here."""
    root = openmoji_lvis_root
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OV_LVIS_ROOT', f'{root}/')
        patch.setenv('CC3M_ROOT', f'{root}/')
        patch.setenv('CC3M_CAPTIONS',
                     'annotations/captions_captioned2017_tags.json')
        patch.setenv('CC3M_IMAGES', 'captioned2017/')
        yield root


def shrink_detector(detector):
    """16 channels everywhere, and few RoIs."""
    backbone, roi_head = detector.backbone, detector.roi_head
    backbone.update(SMALL[backbone.type.split('.')[1]])
    detector.neck.update(in_channels=[4, 8, 16, 32], out_channels=16)
    detector.rpn_head.update(
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=4))
    roi_head.bbox_roi_extractor.out_channels = 16
    roi_head.mask_roi_extractor.out_channels = 16
    for head in roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32)
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    detector.train_cfg.rpn_proposal.max_per_img = 32
    for stage in detector.train_cfg.rcnn:
        stage.sampler.num = 32
    detector.test_cfg.rpn.max_per_img = 8
    detector.test_cfg.rcnn.score_thr = 0.


@pytest.mark.parametrize(
    'name, source_ratio, expected', RECIPES, ids=[row[0] for row in RECIPES])
def test_two_iterations(openmoji_lvis, repository, shorten, train, tmp_path,
                        name, source_ratio, expected):
    cfg = Config.fromfile(repository / f'configs/detic/ov_lvis/{name}.py')
    shorten(cfg, 5, source_ratio)
    shrink_detector(cfg.model.get('detector', cfg.model))
    runner, record = train(cfg, tmp_path)
    names = {
        'rpn_loss_cls', 'rpn_loss_bbox', 's0.loss_mask',
        *(f's{stage}.loss_{part}' for stage in range(3)
          for part in ('cls', 'bbox')), *(f'{of}.loss' for of in expected)
    }
    assert len(record.losses) == 2
    for losses in record.losses:
        parts = {k: v for k, v in losses.items() if 'loss' in k}
        total = parts.pop('loss')
        assert set(parts) == names
        assert all(0 <= v < 1000 for v in parts.values()), parts
        assert all(parts[f'{of}.loss'] > 0 for of in expected)
        assert total == pytest.approx(sum(parts.values()), rel=1e-4)
    metrics = {
        key: buffer.current()
        for key, buffer in runner.message_hub.log_scalars.items()
        if key.startswith('val/ov_lvis/')
    }
    for kind in ('box', 'mask'):
        assert 0 <= metrics[f'val/ov_lvis/{kind}_ap'] < .2
        assert f'val/ov_lvis/{kind}_apr' in metrics
    if 'mosaic.caption' in expected:
        # One caption per image and tile, once per step.
        queue = runner.model.objectives['caption'].queue
        assert 2 * 2 * (1 + 4) <= len(queue) <= 2 * 2 * (1 + 16)


def test_options_for_the_long_tail(repository, differences):
    """They change the source of the mosaics and nothing else."""
    name = f'{R50}_45k_ov-lvis_captions-tags_clim'
    folder = repository / 'configs/detic/ov_lvis'
    plain, tags, grids = (
        Config.fromfile(folder / f'{name}{option}.py')
        for option in ('', '_rare-tags', '_grid-schedule'))
    mosaics = 'train_dataloader.dataset.datasets.2'
    changed = differences(tags, plain)
    assert all(path.startswith(mosaics) for path in changed)
    assert tags.train_dataloader.dataset.datasets[2] == dict(
        type='ClassBalancedDataset',
        oversample_thr=.001,
        dataset=plain.train_dataloader.dataset.datasets[2])
    changed = differences(grids, plain)
    hooks = changed.pop('custom_hooks')
    (path, weights), = changed.items()
    assert path.startswith(mosaics) and path.endswith('grid_weights')
    assert weights == (1, 0, 0)
    assert hooks[:-1] == plain.custom_hooks
    assert [(phase.begin, phase.grids)
            for phase in hooks[-1].schedule] == [(15000, [(3, 3)]),
                                                 (30000, [(4, 4)])]


def test_the_published_constants(openmoji_lvis, repository):
    """REFERENCE.md, sections 1 and 2, in the built recipe."""
    name = f'{R50}_45k_ov-lvis_captions-tags_clim'
    cfg = Config.fromfile(repository / f'configs/detic/ov_lvis/{name}.py')
    assert cfg.train_dataloader.sampler.source_ratio == [8, 16, 16]
    assert (cfg.train_cfg.max_iters, cfg.optim_wrapper.optimizer.type,
            cfg.optim_wrapper.optimizer.lr) == (45000, 'AdamW', 2e-4)
    mosaic = cfg.train_dataloader.dataset.datasets[2].pipeline[-2]
    assert (mosaic.tile_size, mosaic.out_size) == ((320, 320), (640, 640))
    shrink_detector(cfg.model.detector)
    model = MODELS.build(copy.deepcopy(cfg.model))
    heads = model.detector.roi_head.bbox_head
    assert [
        stage.assigner.pos_iou_thr
        for stage in cfg.model.detector.train_cfg.rcnn
    ] == [.6, .7, .8]
    for head in heads:
        assert head.fc_cls.temperature == 50
        assert head.fc_cls.logit_bias is None
        assert head.loss_cls.num_sampled == 50
        # Square roots of the training images, rare classes left out.
        vocabulary = head.vocabulary
        assert head.loss_cls.drawing_weights.tolist() == pytest.approx([
            math.sqrt(count) * base
            for count, base in zip(vocabulary.image_counts, vocabulary.is_base)
        ])
    caption, tag = (model.objectives[k] for k in ('caption', 'tag'))
    assert caption.region_loss.loss_weight == 1
    assert tag.region_loss.loss_weight == pytest.approx(.1)
    assert caption.num_compositions == tag.num_compositions == 2
    assert caption.queue.size == 256
    for loss in (caption.region_loss, tag.region_loss):
        assert not list(loss.parameters())
