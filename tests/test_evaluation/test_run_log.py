# Licensed under the Apache License, Version 2.0.
import json
import math

import pytest

from mmdet_clim.evaluation import (
    last_metrics,
    read_scalars,
    seconds_per_iteration,
)


def write_log(work_dir, stamp, entries, end=''):
    file = work_dir / stamp / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, entries)) + '\n' + end)
    return file


def test_resumed_run_reads_as_one(tmp_path):
    write_log(
        tmp_path,
        '20261124_000001', [
            dict(lr=1., loss=3., time=.9, iter=10, step=10),
            dict(lr=1., loss=2., time=.5, iter=20, step=20),
            {
                'ov_coco/novel_ap50': .1,
                'time': 9.,
                'data_time': 9.,
                'step': 20
            },
            dict(lr=1., loss=9., time=.7, iter=30, step=30),
        ],
        end='{"loss": 1')
    # resumed at iteration 20; its logger writes metrics at step 0
    write_log(tmp_path, '20261124_000002', [
        dict(lr=1., loss=1., time=.6, iter=30, step=30),
        {
            'ov_coco/novel_ap50': .3,
            'ov_coco/base_ap50': .8,
            'step': 0
        },
    ])
    scalars = read_scalars(tmp_path)
    assert scalars['loss'] == [(10, 3.), (20, 2.), (30, 1.)]
    assert scalars['time'] == [(10, .9), (20, .5), (30, .6)]
    assert scalars['ov_coco/novel_ap50'] == [(20, .1), (30, .3)]
    assert last_metrics(scalars) == dict(novel_ap50=.3, base_ap50=.8)
    assert seconds_per_iteration(scalars) == .6


def test_no_training_times():
    assert math.isnan(seconds_per_iteration({}))


def test_nothing_logged(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars.json'):
        read_scalars(tmp_path)


def test_broken_line(tmp_path):
    write_log(tmp_path, 'run', [['no', 'dict'], dict(step=1, loss=1.)])
    with pytest.raises(ValueError, match='line 1.*no'):
        read_scalars(tmp_path)


def test_a_model_that_was_only_tested(tmp_path):
    for stamp, value in (('20261124_000001', .1), ('20261124_000002', .2)):
        (tmp_path / stamp).mkdir()
        (tmp_path / stamp / f'{stamp}.json').write_text(
            json.dumps({
                'region/roi_all_top1': value,
                'time': 3.,
                'data_time': 2.
            }))
    assert read_scalars(tmp_path) == {'region/roi_all_top1': [(0, .2)]}
