# Licensed under the Apache License, Version 2.0.
"""The bound of what is lost, by counting."""
from math import comb

import pytest

from mmdet_clim.evaluation.lost_ap import CONFIDENCE, LostAP

IMAGES = 40
BOX = [10., 10., 20., 20.]


def scenes(*names):
    """An object of each class in each image."""
    return dict(
        images=[dict(id=10 + i, width=64, height=64) for i in range(IMAGES)],
        categories=[dict(id=5 + c, name=name) for c, name in enumerate(names)],
        annotations=[
            dict(
                id=1 + i + IMAGES * c,
                image_id=10 + i,
                category_id=5 + c,
                bbox=BOX,
                area=400.,
                iscrowd=0) for i in range(IMAGES) for c in range(len(names))
        ])


def found(missed, category=5):
    """All objects of a class but those of the first images."""
    return [
        dict(image_id=10 + i, category_id=category, bbox=BOX, score=.9)
        for i in range(missed, IMAGES)
    ]


def binomial_quantile(chance):
    """The least count that CONFIDENCE of draws do not exceed."""
    total = 0.
    for count in range(IMAGES + 1):
        total += comb(IMAGES, count) * chance**count * (1 - chance)**(
            IMAGES - count)
        if total >= CONFIDENCE:
            return count


@pytest.mark.parametrize('missed', [1, 4, 12])
def test_the_bound_is_that_of_drawn_images(missed):
    """Each miss costs a 40th of recall, and drawn misses are binomial.

    Found objects are all right, so AP is recall, of 101 steps.
    """
    lost = LostAP(scenes('cat'), ['cat'], found(0), resamples=4000)
    count = binomial_quantile(missed / IMAGES)
    assert lost.at_most(found(missed)) == pytest.approx(
        count / IMAGES, abs=1 / IMAGES + .02)
    # More than was lost on the images themselves.
    assert lost.at_most(found(missed)) > missed / IMAGES


def test_what_both_lose_is_not_lost():
    """Draws are the same before and after."""
    content = scenes('cat', 'dog', 'unicorn')
    before = found(6) + found(9, 6)
    lost = LostAP(content, ['cat', 'dog', 'absent'], before)
    assert lost.at_most(before) == 0
    # The mean of both classes, of which one loses nothing.
    alone = LostAP(content, ['cat'], found(6))
    both = lost.at_most(found(12) + found(9, 6))
    assert both == pytest.approx(alone.at_most(found(12)) / 2)
    # What is said of other classes does not count.
    assert lost.at_most(before + found(0, 7)) == 0
    # Nothing found at all.
    assert lost.at_most([]) > .7


def test_fewer_images_leave_more_in_doubt():
    few = scenes('cat')
    few['images'] = few['images'][:10]
    few['annotations'] = few['annotations'][:10]
    some = LostAP(few, ['cat'], found(0)[:10])
    all_of_them = LostAP(scenes('cat'), ['cat'], found(0))
    # A tenth each.
    assert some.at_most(found(1)[:9]) > all_of_them.at_most(found(4)) > .1
