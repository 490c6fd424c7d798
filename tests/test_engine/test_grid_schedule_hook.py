# Licensed under the Apache License, Version 2.0.
"""The grids of mosaics over the iterations of a training."""
import copy

import numpy as np
import pytest
from mmdet.datasets import MultiImageMixDataset
from mmengine.dataset import BaseDataset, ClassBalancedDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmdet_clim.datasets import MultiSourceDataset
from mmdet_clim.datasets.transforms import MosaicCLIM
from mmdet_clim.engine.hooks import GridScheduleHook

GRIDS = ((2, 2), (1, 3), (3, 3))
SCHEDULE = [
    dict(begin=10, grids=[(1, 3)]),
    dict(begin=20, grids=[(3, 3), (1, 3)], grid_weights=[3, 1]),
]


def add_image(sample):
    """Noise, so that every draw of a worker shows in the mosaic."""
    image = np.random.randint(0, 255, (4, 4, 3), dtype=np.uint8)
    return dict(sample, img=image, captions=['a'])


def mosaic_clim(**arguments):
    return MosaicCLIM(
        grids=GRIDS,
        grid_weights=[1, 0, 0],
        out_size=(12, 12),
        **{
            'cache_size': 16,
            **arguments
        })


class Captioned(BaseDataset):
    """Images without files."""

    def __init__(self, pipeline, size=30):
        self.size = size
        super().__init__(pipeline=pipeline, serialize_data=False)

    def load_data_list(self):
        return [dict(img_id=number) for number in range(self.size)]

    def get_cat_ids(self, idx):
        return []


class OneWeight(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.layer.weight.square().sum())


class Record(Hook):
    """Grid, pixels and images of the mosaics of each iteration."""

    def __init__(self):
        self.grids, self.draws = [], []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        mosaic = data_batch['inputs'][0]
        self.grids.append(tuple(mosaic['mosaic_grid']))
        self.draws.append(
            (mosaic['image_ids'], np.asarray(mosaic['img']).tolist()))


def to_inputs(samples):
    return dict(inputs=samples)


def train(folder, name, iterations, workers=0, resume=False):
    record = Record()
    loader = dict(num_workers=workers)
    if workers:
        loader.update(persistent_workers=True, prefetch_factor=2)
    Runner(
        model=dict(type=OneWeight),
        work_dir=str(folder),
        experiment_name=name,
        train_dataloader=dict(
            batch_size=1,
            sampler=dict(type='mmdet_clim.MultiSourceSampler'),
            batch_sampler=dict(type='mmdet_clim.MultiSourceBatchSampler'),
            collate_fn=to_inputs,
            dataset=MultiSourceDataset([Captioned([add_image,
                                                   mosaic_clim()])]),
            **loader),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.01)),
        train_cfg=dict(
            type='mmdet_clim.ResumableTrainLoop', max_iters=iterations),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=15),
            logger=None),
        custom_hooks=[GridScheduleHook(SCHEDULE), record],
        randomness=dict(seed=3),
        log_level='ERROR',
        resume=resume).train()
    return record


@pytest.mark.parametrize('workers', [0, 2])
def test_phases_begin_and_a_resumed_run_continues_the_same(tmp_path, workers):
    whole = train(tmp_path / 'whole', f'grids_whole{workers}', 40, workers)
    # Exactly, whatever workers make ahead.
    assert whole.grids[:10] == [(2, 2)] * 10
    # Each worker has its own eight partners first.
    cold = 7 * max(workers, 1)
    assert whole.grids[max(10, cold):20] == [(1, 3)] * (20 - max(10, cold))
    assert set(whole.grids[20:]) == {(3, 3), (1, 3)}
    train(tmp_path / 'parts', f'grids_first{workers}', 15, workers)
    second = train(
        tmp_path / 'parts', f'grids_second{workers}', 40, workers, resume=True)
    # Same images, pixels, partners and grids.
    assert second.grids == whole.grids[15:]
    assert second.draws == whole.draws[15:]


class FixedRunner:
    """What the hook reads of a runner."""

    class Logger:

        def info(self, text):
            self.text = text

    def __init__(self, dataset, iteration=0, **loader):
        self.train_dataloader = DataLoader(
            dataset, batch_size=1, collate_fn=list, **loader)
        self.iter = iteration
        self.logger = self.Logger()


def test_persistent_workers_see_the_change():
    """Two processes that were running before the weights changed."""
    runner = FixedRunner(
        Captioned([add_image, mosaic_clim()], 40),
        num_workers=2,
        persistent_workers=True,
        prefetch_factor=1)
    loader = runner.train_dataloader
    hook = GridScheduleHook([dict(begin=40, grids=[(3, 3)])])
    assert {batch[0]['mosaic_grid'] for batch in loader} == {(2, 2)}
    workers = [worker.pid for worker in loader._iterator._workers]
    hook.before_train(runner)
    runner.iter = 39
    hook.after_train_iter(runner, 39)
    assert {batch[0]['mosaic_grid'] for batch in loader} == {(3, 3)}
    assert [worker.pid for worker in loader._iterator._workers] == workers
    assert 'from iteration 40' in runner.logger.text


@pytest.mark.parametrize('iteration, weights', [
    (0, [1, 0, 0]),
    (9, [1, 0, 0]),
    (10, [0, 1, 0]),
    (19, [0, 1, 0]),
    (20, [0, 1, 3]),
    (999, [0, 1, 3]),
])
def test_the_phase_of_an_iteration(iteration, weights):
    mosaic = mosaic_clim()
    hook = GridScheduleHook(SCHEDULE)
    hook.before_train(FixedRunner(Captioned([mosaic]), iteration))
    assert mosaic.grid_weights.tolist() == weights
    # The same, of a run that came there step by step.
    hook.before_train(FixedRunner(Captioned([mosaic]), 0))
    for before in range(iteration):
        hook.after_train_iter(FixedRunner(Captioned([mosaic]), before), before)
    assert mosaic.grid_weights.tolist() == weights


def test_every_mosaic_of_the_training_data_follows():
    mosaics = [mosaic_clim() for _ in range(4)]
    dataset = MultiSourceDataset([
        Captioned([add_image]),
        Captioned([add_image, mosaics[0]]),
        ClassBalancedDataset(Captioned([mosaics[1]]), oversample_thr=.1),
        MultiImageMixDataset(
            Captioned([add_image]), [dict(type='mmdet.RandomFlip', prob=0.)]),
        Captioned([
            dict(
                type='mmdet.MultiBranch',
                branch_field=['a'],
                a=[dict(type='RandomApply', transforms=[mosaics[2]])])
        ]),
    ])
    dataset.datasets[3].pipeline.append(mosaics[3])
    hook = GridScheduleHook(SCHEDULE)
    hook.before_train(FixedRunner(dataset, 10))
    for mosaic in mosaics:
        assert mosaic.grid_weights.tolist() == [0, 1, 0]


def test_partners_drawn_before_a_phase_still_make_a_mosaic():
    mosaic = mosaic_clim()
    sample = add_image(dict(img_id=0))
    partners = [sample] * len(mosaic.get_indexes([sample] * 9))
    mosaic.grid_weights = [0, 0, 1]
    done = mosaic(dict(sample, mix_results=partners))
    assert done['mosaic_grid'] == (2, 2)


def test_a_cold_cache_keeps_to_the_first_weights():
    mosaic = mosaic_clim()
    mosaic.grid_weights = [0, 0, 1]
    grids = [
        mosaic(add_image(dict(img_id=number)))['mosaic_grid']
        for number in range(20)
    ]
    # 3 x 3 needs eight partners; the sample itself counts.
    assert grids == [(2, 2)] * 7 + [(3, 3)] * 13
    small = mosaic_clim(cache_size=2)
    small.grid_weights = [0, 0, 1]
    assert [small(add_image(dict(img_id=n)))['mosaic_grid']
            for n in range(3)] == [(2, 2), (3, 3), (3, 3)]


def test_the_cache_keeps_the_sizes_of_all_phases():
    mosaic = mosaic_clim()
    mosaic(dict(add_image({}), img_id=0, img=np.zeros((40, 40, 3), np.uint8)))
    sizes = [
        mosaic._cached_tiles[
            0,
        ].ready[grid].shape[:2] for grid in GRIDS
    ]
    assert sizes == [(6, 6), (4, 4), (4, 4)]


def test_a_copy_has_weights_of_its_own():
    mosaic = mosaic_clim()
    other = copy.deepcopy(mosaic)
    other.grid_weights = [0, 1, 0]
    assert mosaic.grid_weights.tolist() == [1, 0, 0]
    assert other.grid_weights.tolist() == [0, 1, 0]
    mosaic.grid_weights[:] = 7  # what is read is a copy
    assert mosaic.grid_weights.tolist() == [1, 0, 0]


@pytest.mark.parametrize('schedule, message', [
    ([], 'schedule: .*at least one phase'),
    ([dict(begin=0, grids=[(2, 2)])], r'schedule\[0\].begin: .*least 1.*0'),
    ([dict(begin=1.5, grids=[(2, 2)])], r'schedule\[0\].begin: .*1.5'),
    ([SCHEDULE[1], SCHEDULE[0]], r'schedule\[1\].begin: .*least 21.*got 10'),
    ([SCHEDULE[0], SCHEDULE[0]], r'schedule\[1\].begin: .*least 11.*got 10'),
    ([dict(grids=[(2, 2)])], r"schedule\[0\]: .*'begin'.*got \['grids'\]"),
    ([dict(begin=5, grids=[(2, 2)], weight=[1])
      ], r"schedule\[0\]: .*'weight'"),
    ([dict(begin=5, grids=[])], r'schedule\[0\].grids: .*got \[\]'),
    ([dict(begin=5, grids=[(2, 2), [2, 2]])], r'schedule\[0\].grids: .*twice'),
    ([dict(begin=5, grids=[(2, 2)], grid_weights=[1, 2])
      ], r'schedule\[0\].grid_weights: expected 1 numbers'),
    ([dict(begin=5, grids=[(2, 2)], grid_weights=[0])
      ], r'schedule\[0\].grid_weights: .*not all 0'),
])
def test_wrong_schedules(schedule, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(
            dict(type='mmdet_clim.GridScheduleHook', schedule=schedule))


def test_a_schedule_that_does_not_fit_the_data():
    hook = GridScheduleHook([*SCHEDULE, dict(begin=30, grids=[(4, 4)])])
    with pytest.raises(ValueError, match=r'schedule\[2\].grids: .*\(4, 4\)'):
        hook.before_train(FixedRunner(Captioned([mosaic_clim()])))
    with pytest.raises(ValueError, match='train_dataloader: .*MosaicCLIM'):
        hook.before_train(FixedRunner(Captioned([add_image])))
    with pytest.raises(ValueError, match='grid_weights: expected 3'):
        mosaic_clim().grid_weights = [1, 2]
