# Licensed under the Apache License, Version 2.0.
"""The small detector under CLIM in MMEngine's runner, with its facilities."""
import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tensorboard.backend.event_processing import event_accumulator
from torch.utils.data import Dataset

from mmdet_clim.datasets import MultiSourceDataset, MultiSourceSampler

MESSAGE = 'loss become infinite or NaN!'


class PackedSamples(Dataset):
    """Samples as a pipeline packs them."""

    metainfo = dict(classes=('cat', 'dog', 'cow', 'bus', 'cup'))

    def full_init(self):
        pass

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image, sample = copy.deepcopy(self.samples[index])
        return dict(inputs=image, data_samples=sample)


class Diverge(Hook):
    """Let the bias of one objective's loss be what a diverged one is."""

    priority = 'VERY_HIGH'

    def __init__(self, objective, value, at):
        self.objective, self.value, self.at = objective, value, at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.at:
            loss = runner.model.objectives[self.objective].region_loss
            loss.bias.data.fill_(self.value)


class CountBoxes(BaseMetric):
    """How many boxes were predicted."""

    def process(self, data_batch, data_samples):
        self.results += [
            len(s['pred_instances']['bboxes']) for s in data_samples
        ]

    def compute_metrics(self, results):
        return dict(boxes=sum(results))


class RecordRates(Hook):
    """The learning rate of each iteration."""

    def __init__(self):
        self.rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])


@pytest.fixture
def runner_of(clim_cfg, make, tmp_path, request):
    """A function that makes the runner of four iterations."""
    sources = MultiSourceDataset([
        PackedSamples([make['box'](i) for i in range(2)]),
        PackedSamples([make['mosaic'](i) for i in range(2, 4)])
    ])

    def build(hooks=(), **changes):
        cfg = dict(
            model=clim_cfg,
            work_dir=str(tmp_path),
            experiment_name=request.node.name,
            default_scope='mmdet',
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=MultiSourceSampler(sources, 4, [1, 1], epoch_length=4),
                collate_fn=pseudo_collate,
                dataset=sources),
            train_cfg=dict(by_epoch=False, max_iters=4, val_interval=4),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-4)),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=1)),
            custom_hooks=[*hooks],
            log_processor=dict(by_epoch=False, window_size=1),
            randomness=dict(seed=0))
        cfg.update(changes)
        return Runner(**cfg)

    return build


@pytest.mark.parametrize('objective', ['caption', 'tag'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_stops_the_run(runner_of, tmp_path,
                                                 objective, value):
    runner = runner_of([
        dict(type='mmdet.CheckInvalidLossHook', interval=1),
        Diverge(objective, value, at=2)
    ])
    with pytest.raises(AssertionError):
        runner.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert MESSAGE in log
    # Two good iterations were saved, the third was not.
    assert runner.iter == 2
    assert sorted(f.name for f in tmp_path.glob('*.pth')) == [
        'iter_1.pth', 'iter_2.pth'
    ]
    state = torch.load(tmp_path / 'iter_2.pth')['state_dict']
    assert all(v.isfinite().all() for v in state.values())


def test_a_finite_run_is_left_alone(runner_of, tmp_path):
    runner = runner_of([dict(type='mmdet.CheckInvalidLossHook', interval=1)])
    runner.train()
    assert runner.iter == 4 and (tmp_path / 'iter_4.pth').exists()
    assert MESSAGE not in next(tmp_path.glob('*/*.log')).read_text()


def test_the_rate_is_scaled_by_the_batch_of_all_sources(runner_of):
    """Two boxes images and two mosaics are a batch of four of sixteen."""
    record = RecordRates()
    runner_of([record], auto_scale_lr=dict(enable=True,
                                           base_batch_size=16)).train()
    assert record.rates == pytest.approx([1e-4 / 4] * 4)


def test_tensorboard_holds_the_losses_of_each_branch(runner_of, tmp_path):
    runner = runner_of(
        visualizer=dict(
            type='mmdet.DetLocalVisualizer',
            name='tensorboard',
            vis_backends=[dict(type='TensorboardVisBackend')]))
    runner.train()
    runner.visualizer.close()
    events = event_accumulator.EventAccumulator(
        str(next(tmp_path.glob('*/vis_data'))))
    events.Reload()
    for name in ('loss', 'loss_bbox', 'mosaic.caption.loss',
                 'mosaic.tag.recall@1'):
        logged = runner.message_hub.get_scalar(f'train/{name}').data[0]
        shown = events.Scalars(name)
        assert [e.step for e in shown] == [1, 2, 3, 4]
        assert [e.value for e in shown] == pytest.approx(list(logged))


def test_detections_are_drawn_in_validation_and_test(runner_of, make,
                                                     tmp_path):
    image, sample = make['box'](7)
    path = str(tmp_path / 'grey.png')
    cv2.imwrite(path, np.full((64, 64, 3), 200, np.uint8))
    sample.set_metainfo(dict(img_path=path))
    loader = dict(
        batch_size=1,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=pseudo_collate,
        dataset=PackedSamples([(image, sample)]))
    runner = runner_of(
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=[CountBoxes()],
        test_dataloader=copy.deepcopy(loader),
        test_cfg=dict(),
        test_evaluator=[CountBoxes()],
        visualizer=dict(
            type='mmdet.DetLocalVisualizer',
            name='drawings',
            vis_backends=[dict(type='LocalVisBackend')]),
        default_hooks=dict(
            visualization=dict(
                type='mmdet.DetVisualizationHook',
                draw=True,
                interval=1,
                score_thr=0.,
                test_out_dir='test')))
    runner.train()
    assert runner.test() == dict(boxes=10)
    for pattern in ('*/vis_data/vis_image/val_img_*.png', '*/test/grey.png'):
        drawn = cv2.imread(str(next(tmp_path.glob(pattern))))
        # The truth and the prediction, side by side, on the image's grey.
        assert drawn.shape == (64, 128, 3)
        for half in (drawn[:, :64], drawn[:, 64:]):
            assert (half == 200).any() and (half != 200).any()
