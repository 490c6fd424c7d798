# Licensed under the Apache License, Version 2.0.
from collections.abc import Sequence

from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample

from mmdet_clim.registry import HOOKS


@HOOKS.register_module()
class DetectionsHook(DetVisualizationHook):
    """Draw detections of an evaluation, but on images that were not read.

    Of those there is nothing to draw on: mmdet's hook would read the file
    once more, or fetch it where its name is an address.

    Args:
        ``*args``, ``**kwargs``: Of mmdet's ``DetVisualizationHook``.
    """

    def after_val_iter(self, runner, batch_idx: int, data_batch: dict,
                       outputs: Sequence[DetDataSample]) -> None:
        """Draw the first image of a batch."""
        read = [o for o in outputs if not o.get('unreadable')]
        if read:
            super().after_val_iter(runner, batch_idx, data_batch, read)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict,
                        outputs: Sequence[DetDataSample]) -> None:
        """Draw the images of a batch."""
        read = [o for o in outputs if not o.get('unreadable')]
        if read:
            super().after_test_iter(runner, batch_idx, data_batch, read)
