# Licensed under the Apache License, Version 2.0.
"""CLIP's crops against torchvision's own transform and by hand."""
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import mmdet_clim  # noqa: F401  (first: torchvision needs what it prepares)
from mmdet_clim.datasets.transforms import RandomResizedCrop
from mmdet_clim.registry import TRANSFORMS


def picture(height, width, seed=0):
    """Smooth noise, so that a place in it can be told."""
    noise = np.random.default_rng(seed).integers(
        0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize('height, width, size', [
    (480, 640, 224),
    (301, 97, 224),
    (20, 400, 16),
    (5, 3, 31),
    (1, 1, 4),
])
def test_it_is_that_of_torchvision(height, width, size):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import RandomResizedCrop as Torchvision
    theirs = Torchvision(
        size, scale=(.9, 1.), interpolation=InterpolationMode.BICUBIC)
    ours = TRANSFORMS.build(
        dict(type='mmdet_clim.RandomResizedCrop', size=size))
    image = picture(height, width)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = np.asarray(theirs(Image.fromarray(image[..., ::-1])))
        torch.manual_seed(seed)
        found = ours(dict(img=image.copy(), img_shape=(height, width)))
        assert found['img'].dtype == np.uint8
        assert found['img_shape'] == found['img'].shape[:2] == (size, size)
        np.testing.assert_array_equal(found['img'], expected[..., ::-1])


def test_crops_are_nine_tenths_of_the_image_at_least_and_never_flipped():
    """A ramp from left to right: its ends say where the crop was."""
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3))
    crop = RandomResizedCrop(100)
    widths = []
    for seed in range(40):
        torch.manual_seed(seed)
        row = crop(dict(img=ramp))['img'][50, :, 0].astype(int)
        assert row[0] < row[50] < row[99]
        widths.append((row[99] - row[0]) / 99 * 100)
    # Of an area from 0.9 on and a ratio from 3/4 to 4/3, what fits.
    assert .8 * 200 < min(widths) < .95 * 200 < max(widths) <= 201
    torch.manual_seed(0)
    again = crop(dict(img=ramp))['img'][50, :, 0].astype(int)
    assert (again[99] - again[0]) / 99 * 100 == widths[0]


def test_a_sample_with_boxes_is_refused():
    with pytest.raises(ValueError, match="'gt_bboxes' .*got 2"):
        RandomResizedCrop(8)(dict(img=picture(9, 9), gt_bboxes=[[0] * 4] * 2))


@pytest.mark.parametrize('image', [
    picture(9, 9).astype(np.float32),
    picture(9, 9)[..., 0],
])
def test_another_array_is_refused(image):
    with pytest.raises(ValueError, match=r"'img' of \(H, W, 3\) uint8, got"):
        RandomResizedCrop(8)(dict(img=image))


@pytest.mark.parametrize('arguments', [
    dict(size=0),
    dict(size=(8, 8)),
    dict(size=8, scale=(0., 1.)),
    dict(size=8, scale=(.9, 1.1)),
    dict(size=8, scale=(1., .9)),
    dict(size=8, ratio=(2., 1.)),
])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        RandomResizedCrop(**arguments)
