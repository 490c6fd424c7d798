# Licensed under the Apache License, Version 2.0.
"""How much captioned data a config shows a model per step."""
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from mmdet_clim.datasets.transforms import MosaicCLIM


def captioned_views(config: Mapping[str, Any]) -> float:
    """Captioned images that a process meets in a training step.

    A tile of a mosaic is a view like a whole image: two whole images and six
    mosaics, half of them 2×2 and half 3×3, are 2 + 6 · (4 + 9) / 2 = 41.

    Args:
        config (Mapping): A resolved config, or the ``config`` of a run's
            fingerprint. Grids that a hook changes later do not count.

    Returns:
        float: In the mean over steps; 0 for a config without captioned data.
    """
    loader = config.get('train_dataloader')
    if not loader:
        return 0.
    dataset = loader['dataset']
    ratio = (loader.get('sampler') or {}).get('source_ratio')
    sources = dataset.get('datasets') if ratio else None
    if not sources or not ratio:
        return loader['batch_size'] * _views_of_sample(dataset)
    return loader['batch_size'] * sum(
        share * _views_of_sample(source)
        for share, source in zip(ratio, sources)) / sum(ratio)


def _views_of_sample(dataset: Mapping[str, Any]) -> float:
    """Captioned images in a sample of a source, however it is wrapped."""
    layers = list(_layers(dataset))
    if not layers[-1]['type'].endswith('ImageTextDataset'):
        return 0
    views = 1.
    for layer in layers:
        for transform in layer.get('pipeline', ()):
            if transform['type'].endswith('MosaicCLIM'):
                views = _tiles(transform)
    return views


def _layers(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A dataset and those that it wraps, the innermost last."""
    layer: Mapping[str, Any] | None = dataset
    while layer is not None:
        yield layer
        layer = layer.get('dataset')


def _tiles(mosaic: Mapping[str, Any]) -> float:
    """Tiles of a mosaic in the mean."""
    parameters = signature(MosaicCLIM).parameters
    grids: Sequence = mosaic.get('grids', parameters['grids'].default)
    prob: float = mosaic.get('prob', parameters['prob'].default)
    tiles = np.average([rows * cols for rows, cols in grids],
                       weights=mosaic.get('grid_weights'))
    return float(prob * tiles + (1 - prob))
