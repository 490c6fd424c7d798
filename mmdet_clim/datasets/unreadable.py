# Licensed under the Apache License, Version 2.0.
"""What a data set does with an image that cannot be read."""
import logging
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from .images import UnreadableImageError


class UnreadableImages:
    """Counts images that could not be read and reports some of them.

    Args:
        owner (str): Who reads them; starts each message.
        report_every (int): The first is reported, then one of each this
            many.

    Raises:
        ValueError: If ``report_every`` is below 1.
    """

    def __init__(self, owner: str, report_every: int = 100) -> None:
        if report_every < 1:
            raise ValueError(
                f'report_every: expected at least 1, got {report_every}')
        self.owner = owner
        self.report_every = report_every
        self.count = 0

    def add(self, reason: str) -> None:
        """Count one, and warn if it is its turn."""
        self.count += 1
        if self.count == 1 or self.count % self.report_every == 0:
            print_log(
                f'{self.owner}: {self.count} unreadable image(s) replaced in '
                f'this process so far, the last: {reason}',
                logger='current',
                level=logging.WARNING)


class ReplacesUnreadable(BaseDataset):
    """Puts the next readable sample in the place of an unreadable one.

    The next in order, not a random one, so that a run and its repetition see
    the same data. In test mode nothing is replaced: the error is raised.

    Args:
        *args, **kwargs: Of the data set.
        report_every (int): The first unreadable image is reported, then one
            of each this many, per process.
    """

    def __init__(self, *args, report_every: int = 100, **kwargs) -> None:
        self.unreadable = UnreadableImages(type(self).__name__, report_every)
        super().__init__(*args, **kwargs)

    def __getitem__(self, idx: int) -> Any:
        """The sample of this index, or the next one that can be read.

        Args:
            idx (int): The index of the sample.

        Returns:
            Any: What the pipeline makes of it.

        Raises:
            UnreadableImageError: In test mode; or if ``max_refetch`` further
                samples cannot be read either.
        """
        self.full_init()
        if self.test_mode:
            return super().__getitem__(idx)
        tries = min(self.max_refetch + 1, len(self))
        for step in range(tries):
            current = (idx + step) % len(self)
            try:
                data = self.prepare_data(current)
                reason = f'the pipeline made nothing of sample {current}'
            except UnreadableImageError as error:
                data, reason = None, str(error)
            if data is not None:
                return data
            self.unreadable.add(reason)
        raise UnreadableImageError(
            f'{type(self).__name__}: none of {tries} samples from index '
            f'{idx} on can be read, the last: {reason}')
