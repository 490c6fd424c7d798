# Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from PIL import Image

from mmdet_clim.models.region_readers import BaseRegionReader, ReadingStage
from mmdet_clim.visualization import (
    cluster_colours,
    detector_responses,
    draw_responses,
    pca_colours,
    picture_grid,
)

CONFIGS = 'configs/openmoji'


class ColourReader(BaseRegionReader):
    """Reads the mean colour of a box."""

    def check(self, detector):
        pass

    def propose(self, detector, feats):
        raise AssertionError('nobody asked for proposals')

    def stages(self, detector, feats):
        return [
            ReadingStage(lambda rois: roi_align(feats.levels[0], rois, 1, 1.0,
                                                0, 'avg', True).flatten(1))
        ]


class Pixels(torch.nn.Identity):
    """The image is its feature map."""

    def extract_feat(self, inputs):
        return (inputs, )


def test_a_detector_answers_where_the_thing_is():
    image = torch.zeros(1, 3, 60, 90)
    image[:, 0, :, :45] = 1  # red on the left
    image[:, 2, :, 45:] = 2  # blue on the right
    red_blue = torch.eye(3)[[0, 2]]
    reader = ColourReader()
    feats = reader.extract_feat(Pixels(), image)
    maps = detector_responses(Pixels(), reader, feats, (60, 90), red_blue)
    assert maps.shape == (2, 60, 90)
    # Far from the edge, a window holds one colour alone.
    np.testing.assert_allclose(maps[0, :, :20], 1, atol=1e-5)
    np.testing.assert_allclose(maps[0, :, 70:], 0, atol=1e-5)
    np.testing.assert_allclose(maps[1, :, 70:], 1, atol=1e-5)
    assert (maps[0, :, 40:50].diff(dim=1) <= 1e-6).all()


def test_colours_of_responses():
    image = np.full((4, 6, 3), 100, np.uint8)
    responses = torch.tensor([[0., .5], [1., 7.]])[None]
    picture, = draw_responses(image, responses, (0, 1))
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    cold, hot = picture[0, 0].astype(int), picture[-1, -1].astype(int)
    assert cold[2] > cold[0] and hot[0] > hot[2]


def test_like_features_have_like_colours():
    torch.manual_seed(0)
    kinds = F.normalize(torch.randn(4, 8), dim=1)
    first = kinds[torch.tensor([[0, 1], [2, 3]])].permute(2, 0, 1)
    second = kinds[torch.tensor([[3, 2, 1]])].permute(2, 0, 1)
    for draw in (pca_colours, lambda maps: cluster_colours(maps, 4)):
        a, b = draw([first, second])
        assert a.shape == (2, 2, 3) and b.shape == (1, 3, 3)
        assert b[0].tolist() == [
            a[1, 1].tolist(), a[1, 0].tolist(), a[0, 1].tolist()
        ]
        assert len({tuple(colour) for colour in a.reshape(-1, 3)}) == 4


def test_the_first_direction_is_red():
    # Along one line, and the two others empty.
    features = torch.zeros(5, 1, 100)
    features[3, 0] = torch.linspace(-1, 1, 100)
    picture, = pca_colours([features])
    assert picture[0, 0, 0] == 0 and picture[0, -1, 0] == 255
    assert (np.diff(picture[0, :, 0].astype(int)) >= 0).all()


def test_one_position_alone():
    assert pca_colours([torch.ones(3, 1, 1)])[0].shape == (1, 1, 3)
    assert cluster_colours([torch.ones(3, 1, 1)], 1)[0].shape == (1, 1, 3)


@pytest.mark.parametrize('features, message', [
    ([], 'one D'),
    ([torch.ones(3, 1, 1), torch.ones(4, 1, 1)], r'\[3, 4\]'),
    ([torch.ones(2, 1, 1)], 'at least 3'),
])
def test_maps_that_have_no_directions(features, message):
    with pytest.raises(ValueError, match=message):
        pca_colours(features)


def test_clusters_need_colours():
    with pytest.raises(ValueError, match='1 to 8, got 9'):
        cluster_colours([torch.ones(3, 4, 4)], 9)


def test_a_grid_of_pictures():
    picture = np.zeros((5, 10, 3), np.uint8)
    grid = picture_grid([[picture, picture]], ['a', 'b'], ['row'], side=40)
    # Twice 40 wide, scaled to 40 x 20, with a column of names.
    assert grid.size[0] == 20 + 6 + 2 * 46
    with pytest.raises(ValueError, match=r'1 rows of 2 pictures, got \[1\]'):
        picture_grid([[picture]], ['a', 'b'], ['row'])


def test_the_tool(repository, openmoji_root, run_tool, tmp_path):
    boxes = repository / CONFIGS / 'faster-rcnn_r18-c4_256_boxes.py'
    clim = str(boxes).replace('boxes', 'captions-tags_clim')
    weights = repository / CONFIGS / 'faster-rcnn_r18-c4_256_base.pth'
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    code, log = run_tool('visualization/response_maps.py', image, '--model',
                         'plain', boxes, weights, '--model', 'wrapped', clim,
                         weights, '--texts', 'a cat', 'a car', '--size', 128,
                         '--out', tmp_path / 'maps.png')
    assert code == 0, log
    picture = np.asarray(Image.open(tmp_path / 'maps.png'))
    # The same weights answer the same: two rows, equal but for their names.
    names, top, margin = 112 + 6, 14 + 3 + 6, 6
    height = (len(picture) - top) // 2
    first = picture[top:top + height - margin, names:]
    second = picture[top + height:top + 2 * height - margin, names:]
    np.testing.assert_array_equal(first, second)
    assert first.std() > 10
