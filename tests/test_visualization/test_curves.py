# Licensed under the Apache License, Version 2.0.
import cv2
import numpy as np
import pytest

from mmdet_clim.visualization import plot_curves
from mmdet_clim.visualization.curves import smooth


def test_smooth_by_hand():
    assert smooth([2., 5., 1.], 0).tolist() == [2, 5, 1]
    # (0.5 * 2 + 5) / 1.5 and (0.25 * 2 + 0.5 * 5 + 1) / 1.75
    assert smooth([2., 5., 1.], .5) == pytest.approx([2, 4, 4 / 1.75])
    assert smooth([3.] * 9, .9) == pytest.approx([3] * 9)
    assert smooth([], .5).shape == (0, )


def test_picture(tmp_path):
    loss = [(i, 1 / i) for i in range(1, 40)]
    runs = {
        'boxes only': {
            'loss': loss,
            'ov_coco/novel_ap50': [(10, .1)]
        },
        'CLIM': {
            'loss': loss,
            'ov_coco/novel_ap50': [(10, .2), (39, .3)]
        },
    }
    file = tmp_path / 'new' / 'curves.png'
    plot_curves(runs, file)
    three = cv2.imread(str(file))
    # no greyscale: the curves have colours
    assert np.ptp(three.astype(int), axis=-1).max() > 100
    plot_curves(runs, file, panels=[('loss', 'loss')])
    assert cv2.imread(str(file)).shape[1] * 3 == three.shape[1]
    plot_curves({'empty': {}}, file)


def test_wrong_input(tmp_path):
    with pytest.raises(ValueError, match='runs'):
        plot_curves({}, tmp_path / 'a.png')
    with pytest.raises(ValueError, match='smoothing.*1'):
        plot_curves({'a': {}}, tmp_path / 'a.png', smoothing=1)
