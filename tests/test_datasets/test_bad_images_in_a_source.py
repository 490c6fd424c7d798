# Licensed under the Apache License, Version 2.0.
"""A source of odd and broken images, through the pipeline of mosaics."""
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_clim.datasets import ImageTextDataset

GREY = 200


def jpeg(image):
    return cv2.imencode('.jpg', image)[1].tobytes()


@pytest.fixture
def source(tmp_path):
    """One file of each kind, the readable ones all of one grey."""
    grey = np.full((60, 80, 3), GREY, np.uint8)
    (tmp_path / 'good.jpg').write_bytes(jpeg(grey))
    (tmp_path / 'truncated.jpg').write_bytes(jpeg(grey)[:-200])
    (tmp_path / 'text.jpg').write_text('<html>not found</html>')
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / '1x1.png').write_bytes(
        cv2.imencode('.png', grey[:1, :1])[1].tobytes())
    (tmp_path / 'grayscale.jpg').write_bytes(jpeg(grey[..., 0]))
    Image.fromarray(grey).convert('CMYK').save(tmp_path / 'cmyk.jpg')
    (tmp_path / 'huge.jpg').write_bytes(
        jpeg(np.full((4000, 6000, 3), GREY, np.uint8)))
    # A header of 60000 x 60000 pixels.
    bomb = bytearray(cv2.imencode('.png', grey)[1].tobytes())
    bomb[16:24] = (60_000).to_bytes(4, 'big') * 2
    (tmp_path / 'bomb.png').write_bytes(bytes(bomb))
    names = [*sorted(p.name for p in tmp_path.iterdir()), 'missing.jpg']
    (tmp_path / 'captions.jsonl').write_text('\n'.join(
        json.dumps(dict(file_name=name, caption=name)) for name in names))
    return ImageTextDataset(
        'captions.jsonl',
        data_root=str(tmp_path),
        pipeline=[
            dict(type='mmdet_clim.LoadImageText', scale=(40, 40)),
            dict(type='mmdet.Resize', scale=(40, 40), keep_ratio=True),
            dict(type='mmdet.RandomFlip', prob=0.5),
            dict(
                type='mmdet_clim.MosaicCLIM',
                grids=[(2, 2)],
                tile_size=(40, 40),
                out_size=(80, 80),
                cache_size=1),
            dict(type='mmdet_clim.PackRegionTextInputs')
        ])


def test_the_readable_ones_are_drawn_and_the_others_replaced(source):
    readable = {'good.jpg', '1x1.png', 'grayscale.jpg', 'cmyk.jpg', 'huge.jpg'}
    drawn = set()
    for number in range(len(source)):
        packed = source[number]
        sample = packed['data_samples']
        # Four times the same image and its own text.
        assert len({*map(tuple, sample.captions)}) == 1
        (name, ) = sample.captions[0]
        own, = source.get_data_info(number)['captions']
        assert name == own or own not in readable
        drawn.add(name)
        assert packed['inputs'].shape == (3, 80, 80)
        for left, top, right, bottom in sample.gt_instances.bboxes.int(
        ).tolist():
            tile = packed['inputs'][:, top:bottom, left:right]
            assert tile.numel() and (tile.int() - GREY).abs().max() <= 4, name
    assert drawn == readable
    # Five, three of them one after the other.
    assert source.unreadable.count == 1 + 1 + (3 + 2 + 1)
