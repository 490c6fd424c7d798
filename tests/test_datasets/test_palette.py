# Licensed under the Apache License, Version 2.0.
import pytest
from mmdet.visualization import DetLocalVisualizer
from mmdet.visualization.palette import get_palette

from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.datasets.palette import class_palette


@pytest.mark.parametrize('count', [0, 1, 72, 1203])
def test_a_colour_for_each_class(count):
    palette = class_palette(count)
    assert len(palette) == count
    assert all(0 <= value <= 255 for colour in palette for value in colour)
    # Neighbouring classes are told apart.
    for one, other in zip(palette, palette[1:]):
        assert max(abs(a - b) for a, b in zip(one, other)) > 60
    assert palette == class_palette(count)


def test_colours_that_are_there_stay():
    assert class_palette(3, [[1, 2, 3]])[0] == (1, 2, 3)
    assert class_palette(1, [(1, 2, 3), (4, 5, 6)]) == [(1, 2, 3), (4, 5, 6)]
    with pytest.raises(ValueError, match='at least 0, got -1'):
        class_palette(-1)


def metainfo(**given):
    return OVCocoDataset(
        metainfo=given, lazy_init=True).metainfo if given else OVCocoDataset(
            lazy_init=True).metainfo


def test_more_classes_than_coco(tmp_path):
    names = tuple(f'thing {n}' for n in range(72))
    meta = metainfo(classes=names)
    assert len(get_palette(meta['palette'], 72)) == 72
    visualizer = DetLocalVisualizer(save_dir=str(tmp_path))
    visualizer.dataset_meta = meta
    assert len(metainfo()['palette']) == 65
    # COCO's colours are those of COCO's classes, one's own stay.
    assert metainfo()['palette'][0] == (220, 20, 60)
    assert metainfo(
        classes=('cat', ), palette=[(1, 2, 3)])['palette'] == [(1, 2, 3)]
    assert len(metainfo(classes=names, palette=[(1, 2, 3)])['palette']) == 72
