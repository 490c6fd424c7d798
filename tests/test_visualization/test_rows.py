# Licensed under the Apache License, Version 2.0.
import cv2
import pytest

from mmdet_clim.evaluation import summarise_runs
from mmdet_clim.visualization import plot_rows


def bar_pixels(file, left, right):
    """Coloured pixels between two shares of the width."""
    image = cv2.imread(str(file)).astype(int)
    width = image.shape[1]
    part = image[:, int(left * width):int(right * width)]
    return int(((part.max(-1) - part.min(-1)) > 40).sum())


def test_longer_bars_for_larger_values(tmp_path):
    runs = {
        'boxes': [dict(base_ap50=.8, novel_ap50=.1)],
        'CLIM':
        [dict(base_ap50=.8, novel_ap50=.6),
         dict(base_ap50=.7, novel_ap50=.8)],
        'nothing': [dict(base_ap50=float('nan'))],
    }
    file = tmp_path / 'new' / 'table.png'
    plot_rows(summarise_runs(runs), file)
    both = bar_pixels(file, 0, 1)
    plot_rows(summarise_runs({'boxes': runs['boxes'], 'none': [{}]}), file)
    assert 0 < bar_pixels(file, 0, 1) < both


def test_wrong_input(tmp_path):
    with pytest.raises(ValueError, match='rows'):
        plot_rows([], tmp_path / 'a.png')
