# Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mmdet_clim.visualization.canvas import (
    draw_dashed_box,
    draw_label,
    enlarge,
    font,
    to_rgb,
    wrap_text,
)


def test_to_rgb_turns_channels():
    inputs = torch.zeros(3, 2, 4, dtype=torch.uint8)
    inputs[0] = 200  # blue
    image = to_rgb(inputs)
    assert image.shape == (2, 4, 3)
    assert image[0, 0].tolist() == [0, 0, 200]


@pytest.mark.parametrize('inputs', [
    torch.zeros(3, 2, 4),
    torch.zeros(1, 2, 4, dtype=torch.uint8),
    torch.zeros(2, 4, dtype=torch.uint8)
])
def test_to_rgb_refuses(inputs):
    with pytest.raises(ValueError, match='inputs.*uint8'):
        to_rgb(inputs)


@pytest.mark.parametrize('shape', [(10, 20), (20, 10), (1, 1), (7, 300)])
def test_enlarge(shape):
    image, factor = enlarge(np.zeros((*shape, 3), np.uint8), 100)
    assert max(image.size) == 100
    assert factor == 100 / max(shape)


def test_wrap_text():
    text = 'a dog and a cat sleep on the couch beside an umbrella'
    lines = wrap_text(text, 20, 150)
    assert ' '.join(lines) == text
    assert len(lines) > 2
    assert all(font(20).getlength(line) <= 150 for line in lines)
    assert wrap_text('', 20, 150) == []
    broken = wrap_text('see ' + 'x' * 50, 20, 150)
    assert ''.join(broken).replace(' ', '') == 'see' + 'x' * 50
    assert all(font(20).getlength(line) <= 150 for line in broken)
    assert wrap_text('ab', 20, 1) == ['a', 'b']


def test_labels_stay_inside_and_apart():
    draw = ImageDraw.Draw(Image.new('RGB', (200, 100)))
    first = draw_label(draw, (190, 0), 'skateboard', 13, (0, 0, 0))
    assert 0 <= first[0] and first[2] <= 200 and first[1] >= 0
    second = draw_label(draw, (190, 0), 'skateboard', 13, (0, 0, 0), [first])
    assert second[1] >= first[3]


def test_dashes():
    canvas = Image.new('RGB', (60, 60))
    draw_dashed_box(ImageDraw.Draw(canvas), (5, 5, 55, 55), (255, 0, 0), 1)
    edge = np.asarray(canvas)[5, 5:56, 0] > 0
    # on for 5, off for 5
    assert edge[:5].all() and not edge[6:9].any() and edge[10:15].all()
    assert not np.asarray(canvas)[10:50, 10:50].any()
