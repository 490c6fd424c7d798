# Licensed under the Apache License, Version 2.0.
"""The small CenterNet2 on OpenMoji's LVIS-like data."""
import pytest
from mmengine.config import Config

from mmdet_clim.engine import captioned_views

BASE = 'centernet2_r18_lvis_base'
CLIM = 'centernet2_r18_lvis_clim'
MOSAICS = 'train_dataloader.dataset.datasets.2'


@pytest.fixture(scope='module')
def read_config(openmoji_lvis_root, repository):
    """Read a config by its name, with data made here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OPENMOJI_LVIS_ROOT', f'{openmoji_lvis_root}/')
        yield lambda name: Config.fromfile(repository /
                                           f'configs/openmoji/{name}.py')


def test_both_stages_train(read_config, shorten, train, tmp_path):
    cfg = read_config(BASE)
    shorten(cfg, 2.5)
    base, record = train(cfg, tmp_path / BASE)
    check(base, record, set())
    # Of its own words, so that any other vocabulary can take their place.
    assert base.model.roi_head.bbox_head[2].fc_cls.class_embeddings.shape == (
        len(base.model.roi_head.bbox_head[2].vocabulary), 384)

    cfg = read_config(CLIM)
    assert cfg.load_from == f'work_dirs/{BASE}/iter_1200.pth'
    shorten(cfg, 2.5, [1, 1, 1])
    cfg.load_from = str(tmp_path / BASE / 'iter_2.pth')
    runner, record = train(cfg, tmp_path / CLIM)
    check(
        runner, record, {
            f'{branch}.{objective}.loss'
            for branch in ('captions', 'mosaic')
            for objective in ('caption', 'tag')
        })
    detector = runner.model.detector.state_dict()
    for name, value in base.model.state_dict().items():
        assert (detector[name] - value).abs().max() < .05, name


def check(runner, record, clim_losses):
    """Two iterations with the losses of three stages, and all metrics."""
    names = {
        'loss', 'rpn_loss_cls', 'rpn_loss_bbox', 's0.loss_mask',
        *(f's{stage}.loss_{part}' for stage in range(3)
          for part in ('cls', 'bbox')), *clim_losses
    }
    assert len(record.losses) == 2
    for losses in record.losses:
        assert {name for name in losses if 'loss' in name} == names
        assert 0 < losses['loss'] < 1000
    scalars = runner.message_hub.log_scalars
    for kind in ('box', 'mask'):
        for group in ('', 'r', 'c', 'f'):
            assert f'val/ov_lvis/{kind}_ap{group}' in scalars


def test_the_options_change_the_mosaics_alone(read_config, differences):
    clim = read_config(CLIM)
    mosaics = clim.train_dataloader.dataset.datasets[2]
    rare_tags = read_config(f'{CLIM}_rare-tags')
    assert all(
        path.startswith(MOSAICS) for path in differences(rare_tags, clim))
    assert rare_tags.train_dataloader.dataset.datasets[2] == dict(
        type='ClassBalancedDataset', oversample_thr=.005, dataset=mosaics)

    novel = read_config(f'{CLIM}_novel-source').train_dataloader
    assert novel.sampler.source_ratio == [8, 2, 3, 3]
    assert sum(novel.sampler.source_ratio) == novel.batch_size
    assert novel.dataset.datasets[:3] == clim.train_dataloader.dataset.datasets
    assert novel.dataset.datasets[3] == dict(
        mosaics, filter_cfg=dict(novel_tags=True))

    changed = differences(read_config(f'{CLIM}_grid-schedule'), clim)
    hooks = changed.pop('custom_hooks')
    assert changed == {f'{MOSAICS}.pipeline.2.grid_weights': (1, 0, 0)}
    assert hooks[:-1] == clim.custom_hooks
    assert hooks[-1].type == 'mmdet_clim.GridScheduleHook'
    assert [(phase.begin, phase.grids)
            for phase in hooks[-1].schedule] == [(100, [(3, 3)]),
                                                 (200, [(4, 4)])]


def test_tags_choose_their_proposals(read_config, differences):
    """Two changes of the row with a source of novel tags, no more."""
    novel = read_config(f'{CLIM}_novel-source')
    changed = differences(read_config(f'{CLIM}_best_softmax'), novel)
    assert {path.split('.loss.')[0]
            for path in changed} == {
                f'model.objectives.tag{key}'
                for key in ('', '.regions', '.max_proposals')
            }
    tag = read_config(f'{CLIM}_best_softmax').model.objectives.tag
    assert tag.loss == dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='softmax',
        temperature=25.,
        loss_weight=.1)
    assert tag.regions == 'best' and tag.max_proposals == 10


def test_whole_images_are_the_row_without_mosaics(read_config, differences):
    clim = read_config(CLIM)
    whole = read_config('centernet2_r18_lvis_captions-tags')
    assert whole.model.branches == dict(captions=['caption', 'tag'])
    loader = whole.train_dataloader
    assert loader.sampler.source_ratio == [8, 8]
    assert sum(loader.sampler.source_ratio) == loader.batch_size
    assert loader.dataset.datasets == clim.train_dataloader.dataset.datasets[:
                                                                             2]
    assert whole.model.objectives == clim.model.objectives


def test_whole_images_with_the_options_of_the_mosaics(read_config):
    clim = read_config(f'{CLIM}_best_softmax')
    views = read_config(f'{CLIM}_best_softmax_equal-views')
    whole = read_config('centernet2_r18_lvis_captions-tags_best_softmax')
    for cfg in (whole, views):
        assert cfg.model.objectives == clim.model.objectives
        assert cfg.model.detector == clim.model.detector
        assert captioned_views(cfg) == 14
        loader = cfg.train_dataloader
        assert loader.batch_size == sum(loader.sampler.source_ratio)
    assert views.train_dataloader.sampler.source_ratio == [8, 3, 3, 1, 1]
    assert captioned_views(clim) == pytest.approx(60)
    # Half of all, too, are drawn for their rare tags.
    for cfg in (whole, clim, views):
        *_, plain, rare = cfg.train_dataloader.dataset.datasets
        # Mosaics that read their tiles anew wrap them.
        plain, rare = (of.get('dataset', of) for of in (plain, rare))
        assert rare.filter_cfg == dict(novel_tags=True)
        assert 'filter_cfg' not in plain
        *_, of_plain, of_rare = cfg.train_dataloader.sampler.source_ratio
        assert of_plain == of_rare
    _, plain, rare, *_ = views.train_dataloader.dataset.datasets
    assert rare == dict(plain, filter_cfg=dict(novel_tags=True))
    pseudo = read_config('centernet2_r18_lvis_pseudo-labels').model
    assert pseudo.objectives.pseudo_label.min_similarity == 0
    assert pseudo.branches == dict(captions=['pseudo_label'])
