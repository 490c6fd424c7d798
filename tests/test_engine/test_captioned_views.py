# Licensed under the Apache License, Version 2.0.
import json

import pytest
from mmengine.config import Config

from mmdet_clim.engine import captioned_views

WHOLE = dict(type='mmdet_clim.ImageTextDataset', pipeline=[dict(type='A')])


def mosaics(**mosaic):
    return dict(
        type='mmdet_clim.ImageTextDataset',
        pipeline=[
            dict(type='A'),
            dict(type='mmdet_clim.MosaicCLIM', **mosaic)
        ])


@pytest.mark.parametrize('name, views', [
    ('boxes', 0),
    ('captions-tags', 8),
    ('captions-tags_clim', 2 + 6 * (4 + 9) / 2),
])
def test_the_rows_of_the_demo(repository, name, views):
    cfg = Config.fromfile(repository /
                          f'configs/openmoji/faster-rcnn_r18-c4_256_{name}.py')
    cfg.train_dataloader.batch_size = 16 if views else 8
    if views:
        cfg.train_dataloader.sampler.update(
            batch_size=16, source_ratio=[8, 2, 6] if views > 8 else [8, 8])
    assert captioned_views(cfg) == pytest.approx(views)
    # as a run's record has it: lists for tuples
    record = json.loads(json.dumps(cfg.train_dataloader.to_dict()))
    assert captioned_views(
        dict(train_dataloader=record)) == pytest.approx(views)


@pytest.mark.parametrize('source, views', [
    (WHOLE, 1),
    (mosaics(), (4 + 9 + 16) / 3),
    (mosaics(grids=((2, 3), )), 6),
    (mosaics(grids=((1, 1), (2, 2)), grid_weights=(1, 3)), 13 / 4),
    (mosaics(grids=((2, 2), ), prob=.5), 2.5),
    (dict(type='Repeat', dataset=WHOLE), 1),
    (dict(
        type='mmdet.MultiImageMixDataset',
        dataset=WHOLE,
        pipeline=[dict(type='mmdet_clim.MosaicCLIM', grids=((3, 3), ))]), 9),
    (dict(type='mmdet_clim.OVCocoDataset', pipeline=[]), 0),
])
def test_a_source_of_its_own(source, views):
    loader = dict(batch_size=3, dataset=source)
    assert captioned_views(dict(train_dataloader=loader)) == pytest.approx(
        3 * views)


def test_a_ratio_that_does_not_divide_the_batch():
    loader = dict(
        batch_size=5,
        sampler=dict(source_ratio=[1, 1, 2]),
        dataset=dict(datasets=[
            dict(type='mmdet_clim.OVCocoDataset'), WHOLE,
            mosaics(grids=((2, 2), ))
        ]))
    assert captioned_views(
        dict(train_dataloader=loader)) == pytest.approx(5 / 4 + 10 / 4 * 4)


def test_nothing_is_trained():
    assert captioned_views(dict(train_dataloader=None)) == 0
