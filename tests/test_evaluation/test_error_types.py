# Licensed under the Apache License, Version 2.0.
import io
import json
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_clim.evaluation import (
    ClassErrors,
    error_types,
    first_detections,
)


def thing(category, bbox, score=None, image=1):
    entry = dict(image_id=image, category_id=category, bbox=bbox)
    return entry if score is None else dict(entry, score=score)


OBJECTS = [thing(1, [0, 0, 10, 10]), thing(2, [50, 50, 10, 10])]


@pytest.mark.parametrize(
    'category, bbox, image, kind',
    [
        (1, [0, 0, 10, 10], 1, 'correct'),
        (1, [0, 0, 10, 6], 1, 'correct'),  # IoU 0.6
        (1, [0, 0, 10, 4], 1, 'location'),  # IoU 0.4
        (2, [0, 0, 10, 10], 1, 'class'),
        (2, [0, 0, 10, 4], 1, 'class and location'),
        (1, [0, 0, 1, 1], 1, 'background'),  # IoU 0.01
        (1, [200, 200, 10, 10], 1, 'background'),
        (1, [0, 0, 10, 10], 2, 'background'),  # an image without objects
        (3, [50, 50, 10, 10], 1, 'class'),  # a class without objects
    ])
def test_each_type(category, bbox, image, kind):
    found = error_types(OBJECTS, [thing(category, bbox, .9, image)])
    assert found[category].types == [kind]


def test_the_better_of_two_takes_the_object():
    worse, better = [0, 0, 10, 10], [0, 0, 10, 7]
    found = error_types(
        OBJECTS,
        [thing(1, worse, .3), thing(1, better, .8)])[1]
    assert found.types == ['correct', 'duplicate']
    assert found.first() == {'correct': 1}
    assert found.average_precision() == 1


def test_as_many_detections_as_objects():
    right, wrong = [0, 0, 10, 10], [90, 90, 5, 5]
    found = [
        thing(1, right, .1),
        thing(1, wrong, .9, 2),
        thing(1, right, .8),
        thing(2, wrong, .01),
        thing(2, [50, 50, 10, 10], .02),
        thing(3, right, .99),  # no object is of this class
    ]
    objects = [*OBJECTS, thing(1, right, image=3)]
    assert first_detections(objects, found) == [(found[1], False),
                                                (found[2], True),
                                                (found[4], True)]
    # one of them is a crowd
    objects[-1]['iscrowd'] = 1
    assert first_detections(objects, found) == [(found[1], False),
                                                (found[4], True)]
    assert first_detections([], found) == []
    assert first_detections(objects, []) == []


def test_average_precision_by_hand():
    # Of two objects one is found, second of all.
    errors = ClassErrors(2, ['class', 'correct', 'background'])
    # Precision 1/2 up to recall 1/2: 51 of 101 points.
    assert errors.average_precision() == pytest.approx(51 * .5 / 101)
    assert errors.average_precision(['class']) == pytest.approx(51 / 101)
    assert ClassErrors(2).average_precision() == 0
    assert math.isnan(ClassErrors(0, ['class']).average_precision())


def test_crowds_and_nothing():
    assert error_types([], []) == {}
    crowd = dict(thing(1, [0, 0, 10, 10]), iscrowd=1)
    assert error_types([crowd], []) == {}


def test_average_precision_is_that_of_pycocotools():
    rng = np.random.default_rng(0)
    objects, detections = [], []
    for image in range(1, 9):
        for _ in range(6):
            x, y = rng.uniform(0, 60, 2).round(1).tolist()
            w, h = rng.uniform(10, 30, 2).round(1).tolist()
            objects.append(
                thing(int(rng.integers(1, 4)), [x, y, w, h], None, image))
            for _ in range(3):
                moved = (np.array([x, y, w, h]) + rng.normal(0, 4, 4)).clip(1)
                detections.append(
                    thing(
                        int(rng.integers(1, 4)), moved.tolist(),
                        float(rng.random()), image))
    found = error_types(objects, detections)
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dict(
            images=[dict(id=i) for i in range(1, 9)],
            categories=[dict(id=c, name=str(c)) for c in (1, 2, 3)],
            annotations=[
                dict(o, id=i, iscrowd=0, area=o['bbox'][2] * o['bbox'][3])
                for i, o in enumerate(objects, 1)
            ])
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
    expected = evaluation.eval['precision'][0, :, :, 0, -1].mean(0)
    assert [found[c].average_precision() for c in (1, 2, 3)] == pytest.approx(
        expected.tolist(), abs=1e-9)


def test_the_tool_tells_base_from_novel(repository, run_tool, tmp_path):
    (tmp_path / 'found.json').write_text(
        json.dumps([
            thing(1, [0, 0, 10, 10], .9),
            thing(2, [0, 0, 10, 10], .8),
        ]))
    (tmp_path / 'truth.json').write_text(
        json.dumps(
            dict(
                images=[dict(id=1)],
                categories=[
                    dict(id=1, name='person'),
                    dict(id=2, name='cat'),
                ],
                annotations=OBJECTS)))
    code, log = run_tool('analysis/error_types.py', tmp_path / 'found.json',
                         tmp_path / 'truth.json', '--base', 'person')
    assert code == 0, log
    assert '| base | 100.0 | 100.0 | 100.0 | 100.0 | 1 | 0 |' in log
    # The cat was looked for at the person's place.
    assert '| novel | 0.0 | 0.0 | 0.0 | 0.0 | 0 | 0 | 0 | 1 | 0 | 0 |' in log
