# Licensed under the Apache License, Version 2.0.
from typing import cast

import torch
from mmdet.structures import DetDataSample
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmdet_clim.models.detectors import CLIMDetector
from mmdet_clim.registry import HOOKS
from mmdet_clim.visualization import composed_boxes, draw_mosaic

from .grid_schedule_hook import find_mosaics


@HOOKS.register_module()
class MosaicVisualizationHook(Hook):
    """Show mosaics of the training batch as the model sees them.

    In iterations 0, ``interval``, 2 ``interval`` ... the first mosaics of the
    batch go to every backend of the runner's visualizer as ``mosaic_0``,
    ``mosaic_1`` and so on: with their tile boxes, captions and tags, and with
    rectangles of several tiles as the objectives of a ``CLIMDetector`` draw
    them (not those of this very step, which they draw later). The pictures
    change no random draw of the training.

    Args:
        interval (int): Iterations from one picture to the next.
        num (int): Mosaics per picture, fewer where the batch has fewer.
        side (int): The longer side of a mosaic in pixels.

    Raises:
        ValueError: If an argument is below 1; at the start of training, if
            there is no ``MosaicCLIM`` in the pipelines of its data.
            ``CLIMOnCLIP`` makes its mosaics on the device, where this hook
            does not see them.
    """

    # After the schedules of mosaics, which are of normal priority.
    priority = 'LOW'

    def __init__(self, interval: int = 500, num: int = 2, side: int = 640):
        for name, value in (('interval', interval), ('num', num), ('side',
                                                                   side)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name}: expected an integer of at least 1, '
                                 f'got {value!r}')
        self.interval = interval
        self.num = num
        self.side = side

    def before_train(self, runner) -> None:
        """Look for mosaics in the data."""
        if not any(find_mosaics(runner.train_dataloader.dataset)):
            raise ValueError(
                'train_dataloader: MosaicVisualizationHook expects MosaicCLIM '
                'in a pipeline of its data, found none')

    def before_train_iter(self,
                          runner,
                          batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Draw the mosaics of a batch that the model has not changed yet."""
        if runner.iter % self.interval or not is_main_process():
            return
        batch = cast(dict, data_batch)
        mosaics = [
            (image, sample)
            for image, sample in zip(batch['inputs'], batch['data_samples'])
            if _tiles(sample) > 1
        ]
        classes = runner.train_dataloader.dataset.metainfo.get('classes')
        for number, (image, sample) in enumerate(mosaics[:self.num]):
            runner.visualizer.add_image(
                f'mosaic_{number}',
                draw_mosaic(
                    image,
                    sample,
                    classes,
                    composed=_composed(runner.model, sample),
                    side=self.side), runner.iter)


def _tiles(sample: DetDataSample) -> int:
    """Images in a sample; an image with boxes is no mosaic."""
    rows, columns = sample.get('mosaic_grid', (0, 0))
    return rows * columns


def _composed(model, sample: DetDataSample) -> torch.Tensor | None:
    """Rectangles of several tiles, if the model composes any."""
    model = model.module if is_model_wrapper(model) else model
    if not isinstance(model, CLIMDetector):
        return None
    names = model.branches.get(sample.branch, ())
    with torch.random.fork_rng(devices=[]):
        return composed_boxes([model.objectives[name] for name in names],
                              sample)
