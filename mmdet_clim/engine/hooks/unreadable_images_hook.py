# Licensed under the Apache License, Version 2.0.
import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch.utils.data import DataLoader, Dataset

from mmdet_clim.datasets import ShardStreamDataset
from mmdet_clim.datasets.replacing import unreadable_images
from mmdet_clim.registry import HOOKS

#: So many files are named.
NAMED = 5


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Say at the end of an epoch and of a run which images were unreadable.

    Of each data set, how many of its samples could not be read by all workers
    of this rank so far, and the first of their files. Nothing is said of what
    was said before.
    """

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def after_train_epoch(self, runner) -> None:
        """Of the training set."""
        self._report('training', runner.train_dataloader, 'replaced')

    def after_train(self, runner) -> None:
        """Of the training set, where epochs are not counted."""
        self._report('training', runner.train_dataloader, 'replaced')

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Of the validation set."""
        self._report('validation', runner.val_dataloader,
                     'counted as without a detection')

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Of the test set."""
        self._report('test', runner.test_dataloader,
                     'counted as without a detection')

    def _report(self, kind: str, loader: DataLoader, what: str) -> None:
        for number, (part,
                     notes) in enumerate(unreadable_images(loader.dataset)):
            indices = notes.indices
            # Of a test on several data sets, each is of another file.
            key = f'{kind} {number} {getattr(part, "ann_file", "")}'
            if len(indices) == self._said.get(key, 0):
                continue
            self._said[key] = len(indices)
            print_log(
                f'{kind}, {notes.owner}: {len(indices)} of {len(part)} '
                f'samples could not be read and were {what}'
                f'{_named(part, indices)}',
                logger='current',
                level=logging.WARNING)


def _named(dataset: Dataset, indices: list[int]) -> str:
    """The first of their files, and how many more there are."""
    if isinstance(dataset, ShardStreamDataset):
        # Of a stream, an index means a sample to the worker that draws it.
        return ''
    files = [
        str(dataset.get_data_info(index).get('img_path', index))
        for index in indices[:NAMED]
    ]
    more = len(indices) - len(files)
    return f': {", ".join(files)}{f" and {more} more" if more else ""}'
