# Licensed under the Apache License, Version 2.0.
import cv2
import numpy as np
import pytest

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.evaluation import compare_class_ap
from mmdet_clim.visualization import plot_class_ap
from mmdet_clim.visualization.detections import BASE_COLOUR, NOVEL_COLOUR

WORDS = Vocabulary(('cat', 'dog', 'bus', 'owl'), ('cat', 'bus'))


def columns_of(file, colour):
    """Rows and columns, as shares, of the pixels of a colour."""
    image = cv2.imread(str(file))[..., ::-1]
    ys, xs = (image == colour).all(-1).nonzero()
    return ys / image.shape[0], xs / image.shape[1]


def test_novel_above_base_and_gains_beside(tmp_path):
    file = tmp_path / 'new' / 'class_ap.png'
    rows = compare_class_ap(
        dict(
            a=[dict(cat=.8, dog=.1, bus=.5, owl=.1)],
            b=[dict(cat=.7, dog=.9, bus=.5, owl=.2)]), WORDS)
    plot_class_ap(rows, file, gain_title='b minus a')
    novel, base = (columns_of(file, c) for c in (NOVEL_COLOUR, BASE_COLOUR))
    # The legend, whose patches have the same colours, is at the bottom.
    bars = base[0] < .85
    assert novel[0][novel[0] < .85].max() < base[0][bars].min()
    # dog gains 80, cat loses 10: orange bars on the right are longer.
    right = [(xs > .57) & (ys < .85) for ys, xs in (novel, base)]
    assert right[0].sum() > 5 * right[1].sum() > 0


def test_the_largest_changes_of_many(tmp_path):
    names = tuple(f'class {i}' for i in range(300))
    many = Vocabulary(names, names[:200])
    before = {n: .5 for n in names}
    after = dict(before, **{'class 7': .6, 'class 250': .1, 'class 9': .51})
    rows = compare_class_ap(dict(a=[before], b=[after]), many)
    few = [rows[i] for i in (7, 250, 9)]
    plot_class_ap(rows, tmp_path / 'many.png', num=3)
    plot_class_ap(few, tmp_path / 'few.png')
    drawn, wanted = (
        cv2.imread(str(tmp_path / f'{n}.png')) for n in ('many', 'few'))
    # The same but for the line that says how many are left out.
    assert drawn.shape == wanted.shape
    assert (drawn[:20] != wanted[:20]).any()


def test_one_run_has_one_panel(tmp_path):
    rows = compare_class_ap(dict(a=[dict(cat=.5), dict(cat=.7)]), WORDS)
    plot_class_ap(rows, tmp_path / 'a.png')
    two = compare_class_ap(dict(a=[dict(cat=.5)], b=[dict(cat=.7)]), WORDS)
    plot_class_ap(two, tmp_path / 'b.png')
    widths = [
        cv2.imread(str(tmp_path / f)).shape[1] for f in ('a.png', 'b.png')
    ]
    assert widths[0] < widths[1]
    nothing = compare_class_ap(
        dict(a=[dict(cat=np.nan)], b=[dict(cat=np.nan)]), WORDS)
    plot_class_ap(nothing, tmp_path / 'c.png')


@pytest.mark.parametrize('rows, num, message', [
    ([], None, 'rows: expected at least one'),
    ([dict(ap=dict(a=1.))], 0, 'num: expected at least 1, got 0'),
])
def test_wrong_input(tmp_path, rows, num, message):
    with pytest.raises(ValueError, match=message):
        plot_class_ap(rows, tmp_path / 'a.png', num=num)
