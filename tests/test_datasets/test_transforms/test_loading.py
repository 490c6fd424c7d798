# Licensed under the Apache License, Version 2.0.
"""The loading transform; decoding itself is tested with the images."""
import pytest

from mmdet_clim.datasets import UnreadableImageError
from mmdet_clim.datasets.transforms import LoadImageText
from mmdet_clim.registry import TRANSFORMS


def test_it_loads_at_full_and_at_reduced_size(tmp_path, write_image):
    path = str(write_image(tmp_path / 'a.jpg', 640, 480, (50, 100, 200)))
    full = LoadImageText()(dict(img_path=path, captions=['x']))
    assert full['img'].shape == (480, 640, 3)
    assert full['img_shape'] == full['ori_shape'] == (480, 640)
    assert full['captions'] == ['x']
    small = TRANSFORMS.build(
        dict(type='mmdet_clim.LoadImageText', scale=(300, 300)))(
            dict(img_path=path))
    assert small['img_shape'] == (240, 320)
    assert small['ori_shape'] == (480, 640)
    assert abs(small['img'].astype(int) - (50, 100, 200)).max() <= 3


def test_an_unreadable_image_is_named(tmp_path):
    with pytest.raises(UnreadableImageError, match='gone.jpg'):
        LoadImageText()(dict(img_path=str(tmp_path / 'gone.jpg')))


def test_boxes_are_not_silently_left_behind(tmp_path, write_image):
    path = str(write_image(tmp_path / 'a.jpg', 64, 48))
    sample = dict(img_path=path, instances=[dict(bbox=[0, 0, 5, 5])])
    assert LoadImageText()(dict(sample))['img'].shape == (48, 64, 3)
    with pytest.raises(ValueError, match='scale'):
        LoadImageText(scale=(8, 8))(sample)


@pytest.mark.parametrize('arguments', [
    dict(scale=(0, 4)),
    dict(scale=(4, )),
    dict(max_pixels=0),
])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LoadImageText(**arguments)
