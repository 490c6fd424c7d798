# Licensed under the Apache License, Version 2.0.
"""Packages that compute AP against COCO's and LVIS's own."""
import multiprocessing
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from mmdet_clim.datasets.coco_annotations import read_coco
from mmdet_clim.evaluation import coco_api, lvis_api
from mmdet_clim.evaluation.backends import choose_backend, threads_are_here
from mmdet_clim.evaluation.lvis_detections import LVISDetections, evaluated

SIDE = 40
IOUS = np.linspace(.5, .95, 10)


def random_boxes(rng, count, coarse):
    """Boxes; coarse ones have many equal IoUs, some without an area."""
    if coarse:
        return np.concatenate([
            rng.integers(0, 6, (count, 2)) * 4.,
            rng.integers(0, 5, (count, 2)) * 4.
        ], 1)
    return np.concatenate(
        [rng.uniform(-3, 25, (count, 2)),
         rng.uniform(.1, 20, (count, 2))], 1)


def random_case(seed, most, coarse, ties):
    """A file, of use to COCO and LVIS, and detections half of its boxes.

    Ids are in no order, and may be 0.
    """
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(9)[:rng.integers(1, 5)]
    category_ids = rng.permutation(9)[:rng.integers(1, 4)]
    chosen = [int(c) for c in category_ids]
    annotations = []
    for image in image_ids.tolist():
        for category in chosen:
            for box in random_boxes(rng, rng.integers(0, 4), coarse).tolist():
                x, y, w, h = box
                if w > 0 and h > 0:
                    annotations.append(
                        dict(
                            image_id=image,
                            category_id=category,
                            bbox=box,
                            area=w * h * rng.choice([1, .6]),
                            segmentation=[[
                                max(x, 0),
                                max(y, 0), x + w,
                                max(y, 0), x + w, y + h
                            ]]))
    rng.shuffle(annotations)
    crowds = rng.random(len(annotations)) < .25
    annotations = [
        dict(a, id=number) for number, a in enumerate(annotations, 1)
    ]
    content = dict(
        images=[
            dict(
                id=image,
                height=SIDE,
                width=SIDE,
                neg_category_ids=[c for c in chosen if rng.random() < .4],
                not_exhaustive_category_ids=[
                    c for c in chosen if rng.random() < .4
                ]) for image in image_ids.tolist()
        ],
        categories=[
            dict(id=c, name=f'class {c}', frequency='rcf'[c % 3])
            for c in sorted(chosen)
        ],
        annotations=annotations)
    coco = dict(
        content,
        annotations=[
            dict(a, iscrowd=int(c)) for a, c in zip(annotations, crowds)
        ])
    count = int(rng.integers(0, most + 1)) * len(image_ids)
    images = rng.choice(image_ids, count)
    categories = rng.choice(category_ids, count)
    boxes = random_boxes(rng, count, coarse)
    for row in range(count):
        if annotations and rng.random() < .5:
            source = annotations[rng.integers(len(annotations))]
            images[row], categories[row] = (source['image_id'],
                                            source['category_id'])
            boxes[row] = source['bbox']
    scores = rng.random(count)
    masks = []
    for x, y, w, h in boxes.round().astype(int).tolist():
        mask = np.zeros((SIDE, SIDE), np.uint8, order='F')
        mask[max(y, 0):max(y + h, 0), max(x, 0):max(x + w, 0)] = 1
        masks.append(mask_utils.encode(mask))
    return content, coco, LVISDetections(images, categories,
                                         scores.round(1) if ties else scores,
                                         boxes, np.array(masks, dtype=object))


# Most detections of an image: beyond COCO's 100 and LVIS's 300 of them.
CASES = dict(
    seed=st.integers(0, 2**32),
    most=st.sampled_from([0, 3, 20, 120]),
    coarse=st.booleans(),
    ties=st.booleans())


def coco_precisions(content, found):
    """By each package, of categories in another order than the file's."""
    rows = found.as_dicts('bbox')
    return {
        name:
        precision(content, [{
            key: row[key]
            for key in ('image_id', 'category_id', 'score', 'bbox')
        } for row in rows], [image['id'] for image in content['images']],
                  [c['id'] for c in content['categories']][::-1], IOUS)
        for name, precision in coco_api.BACKENDS.items()
    }


@given(**CASES)
@settings(max_examples=25, deadline=None)
def test_coco(seed, most, coarse, ties):
    _, content, found = random_case(seed, most, coarse, ties)
    results = coco_precisions(content, found)
    wanted = results.pop('pycocotools')
    assert wanted.shape == (10, 101, len(content['categories']))
    for name, got in results.items():
        np.testing.assert_allclose(
            got, wanted, rtol=0, atol=1e-9, err_msg=name)


@given(
    iou_type=st.sampled_from(['bbox', 'segm']), fixed=st.booleans(), **CASES)
@settings(max_examples=25, deadline=None)
def test_lvis(seed, most, coarse, ties, iou_type, fixed):
    content, _, found = random_case(seed, 3 * most, coarse, ties)
    kept = evaluated(found, content, iou_type, fixed)
    results = {
        name: precision(content, kept, iou_type)
        for name, precision in lvis_api.BACKENDS.items()
    }
    wanted = results.pop('lvis')
    assert wanted.shape == (10, 101, len(content['categories']))
    for name, got in results.items():
        np.testing.assert_allclose(
            got, wanted, rtol=0, atol=1e-9, err_msg=name)


def jittered(content):
    """Detections of a file's own boxes, some of other classes, with ties."""
    rng = np.random.default_rng(0)
    count = 4 * len(content['images'])
    source = [
        content['annotations'][i]
        for i in rng.integers(0, len(content['annotations']), count)
    ]
    boxes = np.array([a['bbox'] for a in source])
    boxes += rng.normal(0, .05, (count, 4)) * boxes[:, 2:].repeat(2, 1)
    categories = np.array([a['category_id'] for a in source])
    wrong = rng.random(count) < .2
    categories[wrong] = rng.choice([c['id'] for c in content['categories']],
                                   wrong.sum())
    return LVISDetections(
        np.array([a['image_id'] for a in source]), categories,
        rng.random(count).round(2), boxes)


@pytest.mark.parametrize('name', [
    'coco/tiny_coco/annotations/instances_val2017.json',
    'lvis/lvis_val_100.json'
])
def test_real_files(repository, name):
    file = repository.parent / 'shared' / 'real' / 'published' / name
    if not file.is_file():
        pytest.skip(f'{file} is absent')
    is_lvis = name.startswith('lvis')
    content = read_coco(file, lvis=is_lvis, need_names=False)
    for number, annotation in enumerate(content['annotations'], 1):
        annotation['id'] = number
    content['categories'].sort(key=lambda category: category['id'])
    found = jittered(content)
    if is_lvis:
        kept = evaluated(found, content, 'bbox', True)
        results = {
            name: precision(content, kept, 'bbox')
            for name, precision in lvis_api.BACKENDS.items()
        }
        wanted = results['lvis']
    else:
        results = coco_precisions(content, found)
        wanted = results['pycocotools']
    assert .1 < wanted[wanted >= 0].mean() < .9
    for name, got in results.items():
        np.testing.assert_allclose(
            got, wanted, rtol=0, atol=1e-9, err_msg=name)


def test_the_fastest_that_is_there(monkeypatch):
    known = ('hotcoco', 'json', 'not_installed_here')
    assert choose_backend(None, known, 'json') == 'hotcoco'
    assert choose_backend('json', known, 'json') == 'json'
    with pytest.raises(ValueError, match="backend: .*'json'.*got 'numpy'"):
        choose_backend('numpy', known, 'json')
    with pytest.raises(ModuleNotFoundError, match='not_installed_here'):
        choose_backend('not_installed_here', known, 'json')
    monkeypatch.setattr('mmdet_clim.evaluation.backends.find_spec', {}.get)
    assert choose_backend(None, known, 'json') == 'json'


def test_an_absent_package_is_named_before_anything_is_read(monkeypatch):
    from mmdet_clim.evaluation import OVCocoMetric, OVLVISMetric
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    for metric in (OVCocoMetric, OVLVISMetric):
        with pytest.raises(ModuleNotFoundError, match='faster_coco_eval'):
            metric('no such file.json', backend='faster_coco_eval')


def test_a_fork_does_not_wait_for_threads_that_it_has_not():
    """The parent has used hotcoco; the child evaluates as well."""
    content, coco, found = random_case(0, 20, False, False)
    kept = evaluated(found, content, 'bbox', False)

    def precisions():
        return (lvis_api.hotcoco_precision(content, kept, 'bbox'),
                coco_api.hotcoco_precision(
                    coco, kept.as_dicts('bbox'),
                    [i['id'] for i in coco['images']],
                    [c['id'] for c in coco['categories']], IOUS))

    def child(pipe):
        pipe.send((threads_are_here(), precisions()))

    wanted = precisions()
    assert threads_are_here()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(
        target=child, args=(theirs, ))
    process.start()
    here, got = ours.recv()
    process.join()
    assert not here
    for one, other in zip(got, wanted):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
