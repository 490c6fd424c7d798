# Licensed under the Apache License, Version 2.0.
"""What a metric makes of an image that could not be read."""
from collections.abc import Sequence


def without_unreadable(data_samples: Sequence[dict]) -> list[dict]:
    """Take the detections off images that could not be read.

    The model saw a grey image in their place
    (:class:`~mmdet_clim.datasets.replacing.ReplacesUnreadable`): their
    objects count as missed, and nothing that was found counts as false.

    Args:
        data_samples (Sequence[dict]): With ``pred_instances``; those with
            ``unreadable`` are the ones.

    Returns:
        list[dict]: The samples, copied where they are changed.
    """
    return [
        dict(
            sample,
            pred_instances={
                key: values[:0]
                for key, values in sample['pred_instances'].items()
            }) if sample.get('unreadable') else sample
        for sample in data_samples
    ]
