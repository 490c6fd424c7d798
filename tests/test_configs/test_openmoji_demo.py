# Licensed under the Apache License, Version 2.0.
"""The rows of `make demo`, and others of their length."""
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmdet_clim.engine import captioned_views


@pytest.fixture
def read_config(openmoji_root, repository, monkeypatch):
    """Read a config by its name, with data made here."""
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    return lambda name: Config.fromfile(repository /
                                        f'configs/openmoji/demo_{name}.py')


def test_tiles_are_any_of_all_images(read_config):
    cfg = read_config('clim_best_softmax_2x2')
    assert cfg.model == read_config('clim_best_softmax').model
    mosaics = DATASETS.build(cfg.train_dataloader.dataset.datasets[2])
    everything = {
        mosaics.dataset.get_data_info(i)['img_id']
        for i in range(len(mosaics))
    }
    np.random.seed(0)
    seen = []
    for _ in range(20):
        sample = mosaics[0]
        assert sample['inputs'].shape == (3, 256, 256)
        found = sample['data_samples']
        assert found.mosaic_grid == (2, 2) and found.branch == 'mosaic'
        assert found.gt_instances.bboxes[:, 2:].max() <= 256
        first, *others = found.image_ids
        assert first == mosaics.dataset.get_data_info(0)['img_id']
        seen += others
    # Only one sample was asked for, so a cache would hold no other.
    assert set(seen) <= everything and len(set(seen)) > 4


def test_captioned_views_of_a_step(read_config):
    rows = [
        read_config(f'clim_best_softmax_2x2{name}').train_dataloader
        for name in ('', '_equal-views')
    ]
    assert rows[0].dataset == rows[1].dataset
    views = []
    for loader in rows:
        boxes, whole, mosaics = loader.sampler.source_ratio
        assert boxes + whole + mosaics == loader.batch_size and boxes == 4
        views.append(whole + 4 * mosaics)
    assert views == [26, 38]


@pytest.mark.parametrize('test_option', ['', '_compete'])
def test_whole_images_with_as_many_views(read_config, test_option):
    whole_images = f'captions-tags_best_softmax{test_option}'
    cfg = read_config(f'{whole_images}_equal-views')
    loader = cfg.train_dataloader
    boxes, whole = loader.sampler.source_ratio
    assert boxes + whole == loader.batch_size and boxes == 4
    clim = read_config(f'clim_best_softmax_2x2{test_option}')
    assert whole == captioned_views(cfg) == captioned_views(clim)
    assert cfg.model == read_config(whole_images).model
    # Only mosaics are different.
    assert cfg.model.objectives == clim.model.objectives
    assert cfg.model.detector == clim.model.detector
    assert cfg.optim_wrapper == clim.optim_wrapper


def test_more_whole_images(read_config):
    captions = read_config('captions-tags_best_softmax_compete_more-whole')
    clim = read_config('clim_best_softmax_2x2_compete_more-whole')
    views = read_config('captions-tags_best_softmax_compete_equal-views')
    assert captions.train_dataloader.sampler.source_ratio == [4, 14]
    assert clim.train_dataloader.sampler.source_ratio == [4, 14, 3]
    for cfg in (captions, clim):
        loader = cfg.train_dataloader
        assert sum(loader.sampler.source_ratio) == loader.batch_size
        assert cfg.model.objectives == views.model.objectives
        assert cfg.model.detector == views.model.detector
    assert captioned_views(captions) == 14
    assert captioned_views(clim) == captioned_views(views) == 14 + 3 * 4


@pytest.mark.parametrize(
    'name', ['captions-tags_best_softmax', 'clim_best_softmax_2x2'])
def test_only_the_test_scores_compete(read_config, name):
    plain = read_config(name)
    compete = read_config(f'{name}_compete')
    loss_cls = compete.model.detector.roi_head.bbox_head.pop('loss_cls')
    assert loss_cls == dict(
        type='mmdet_clim.BaseClassSigmoidLoss', compete=True)
    assert compete.model == plain.model
    assert compete.train_dataloader == plain.train_dataloader


@pytest.mark.parametrize('name, ratio, own', [
    ('clim_best_softmax_2x2_compete_more-whole', [1, 1, 1], {
        'captions.caption.loss', 'captions.tag.loss', 'mosaic.caption.loss',
        'mosaic.tag.loss'
    }),
    ('pseudo-labels', [1, 1], {'captions.pseudo_label.loss'}),
])
def test_the_row_trains(read_config, shorten, train, tmp_path, name, ratio,
                        own):
    cfg = read_config(name)
    shorten(cfg, 2, ratio)
    _, record = train(cfg, tmp_path)
    for losses in record.losses:
        assert {key for key in losses if key.endswith('.loss')} == own
        assert 0 < losses['loss'] < 1000
