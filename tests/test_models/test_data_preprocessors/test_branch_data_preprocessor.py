# Licensed under the Apache License, Version 2.0.
"""Images of odd sizes, for detectors that say how to pad and others."""
import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_clim.models.data_preprocessors import BranchDataPreprocessor


def sample(height, width, **meta):
    return (torch.full((3, height, width), 200, dtype=torch.uint8),
            DetDataSample(metainfo=dict(img_shape=(height, width), **meta)))


@pytest.mark.parametrize('own, boxes, mosaics', [
    (1, (47, 61), (64, 64)),
    (16, (48, 64), (48, 48)),
    (64, (64, 64), (64, 64)),
])
def test_sizes_after_padding(own, boxes, mosaics):
    preprocessor = BranchDataPreprocessor(
        dict(
            type='mmdet.DetDataPreprocessor',
            mean=[100.] * 3,
            std=[50.] * 3,
            pad_size_divisor=own))
    images, samples = zip(
        sample(47, 61), sample(33, 41, branch='mosaic'),
        sample(40, 35, branch='mosaic'))
    for _ in range(2):
        done = preprocessor(
            dict(inputs=list(images), data_samples=list(samples)), True)
        assert done['inputs']['boxes'].shape == (1, 3, *boxes)
        assert done['inputs']['mosaic'].shape == (2, 3, *mosaics)
    # What is padded is 0 after the normalisation, what is not is (x - m) / s.
    mosaic = done['inputs']['mosaic'][0]
    assert mosaic[:, :33, :41].eq(2).all()
    assert mosaic[:, 33:].eq(0).all() and mosaic[:, :, 41:].eq(0).all()
    assert done['data_samples']['mosaic'][0].img_shape == (33, 41)
    # At test time the detector's own preprocessor decides.
    tested = preprocessor(
        dict(inputs=list(images[:1]), data_samples=list(samples[:1])), False)
    assert tested['inputs'].shape == (1, 3, *boxes)
