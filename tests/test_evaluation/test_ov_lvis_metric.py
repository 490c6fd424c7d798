# Licensed under the Apache License, Version 2.0.
import importlib
import json

import lvis
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmdet_clim.evaluation import OVLVISMetric
from mmdet_clim.evaluation.lvis_api import BACKENDS as PRECISIONS
from mmdet_clim.evaluation.lvis_detections import LVISDetections, evaluated

BACKENDS = ['lvis', 'faster_coco_eval', 'hotcoco']
# Label order differs from the order of the ids; blanks for underscores.
CLASSES = ('cow', 'bat (animal)', 'bus', 'cup', 'yak')
CATEGORIES = [
    dict(id=4, name='bus', frequency='f'),
    dict(id=7, name='cow', frequency='f'),
    dict(id=9, name='bat_(animal)', frequency='r'),
    dict(id=12, name='yak', frequency='r'),
    dict(id=15, name='cup', frequency='c'),
]
IDS = {c['name'].replace('_', ' '): c['id'] for c in CATEGORIES}
SIZE = (100, 200)


def write(tmp_path, boxes, num_images, negative=None, partial=None):
    """Write {(image id, name): [xywh, ...]} as an LVIS file.

    The masks are the boxes. ``negative`` and ``partial`` (not exhaustive):
    image id to names.
    """
    annotations = []
    for (image_id, name), rows in boxes.items():
        for x, y, w, h in rows:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=IDS[name],
                    bbox=[x, y, w, h],
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    area=w * h))
    images = [
        dict(
            id=i,
            height=SIZE[0],
            width=SIZE[1],
            neg_category_ids=[IDS[n] for n in (negative or {}).get(i, ())],
            not_exhaustive_category_ids=[
                IDS[n] for n in (partial or {}).get(i, ())
            ]) for i in range(1, num_images + 1)
    ]
    path = tmp_path / 'lvis.json'
    path.write_text(
        json.dumps(
            dict(
                images=images, annotations=annotations,
                categories=CATEGORIES)))
    return str(path)


def sample(image_id, detections, encoded=False):
    """A prediction from [(name, score, xywh), ...]; masks fill the boxes."""
    xywh = torch.tensor([d[2] for d in detections]).float().reshape(-1, 4)
    masks = torch.zeros(len(detections), *SIZE, dtype=torch.bool)
    for mask, (x, y, w, h) in zip(masks, xywh.round().int().tolist()):
        mask[max(y, 0):y + h, max(x, 0):x + w] = True
    if encoded:
        masks = [
            mask_utils.encode(np.asfortranarray(m.numpy().astype(np.uint8)))
            for m in masks
        ]
    return DetDataSample(
        metainfo=dict(img_id=image_id, ori_shape=SIZE),
        pred_instances=InstanceData(
            bboxes=torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
            scores=torch.tensor([d[1] for d in detections]).float(),
            masks=masks,
            labels=torch.tensor([CLASSES.index(d[0]) for d in detections],
                                dtype=torch.int64)))


def run(metric, samples, classes=CLASSES):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=classes)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def random_case(tmp_path, seed, num_images=10, names=CLASSES):
    """Random boxes, and detections that are some of them jittered."""
    rng = np.random.default_rng(seed)
    boxes, samples, negative, partial = {}, [], {}, {}
    for image_id in range(1, num_images + 1):
        detections = []
        for name in names:
            rows = []
            for _ in range(rng.integers(0, 3)):
                x, y = rng.integers(0, 60, 2).tolist()
                w, h = rng.integers(5, 40, 2).tolist()
                rows.append([x, y, w, h])
            for x, y, w, h in [*rows, [30, 30, 20, 20]]:
                if rng.random() < .8:
                    jitter = rng.normal(0, 3, 2)
                    # Scores of one digit, so that there are ties.
                    detections.append(
                        (name, round(float(rng.random()),
                                     1), [x + jitter[0], y + jitter[1], w, h]))
            if rows:
                boxes[image_id, name] = rows
        negative[image_id] = [n for n in names if rng.random() < .3]
        partial[image_id] = [n for n in names if rng.random() < .3]
        samples.append(sample(image_id, detections))
    return write(tmp_path, boxes, num_images, negative, partial), samples


@pytest.mark.parametrize('backend', BACKENDS)
def test_per_class_by_hand(tmp_path, backend):
    boxes = {
        (1, 'cow'): [[0, 0, 40, 40]],
        (2, 'cow'): [[0, 0, 40, 40]],
        (1, 'bat (animal)'): [[100, 0, 40, 40]],
        (2, 'cup'): [[100, 50, 40, 40]]
    }
    samples = [
        # cow: found. bat: IoU 24/56 = 0.43, missed.
        sample(1, [('cow', .9, [0, 0, 40, 40]),
                   ('bat (animal)', .9, [116, 0, 40, 40])]),
        # cow: missed, a false one scored below. cup: IoU 0.625, found at
        # 0.50, 0.55 and 0.60 of the ten thresholds.
        sample(2, [('cow', .5, [60, 60, 30, 30]),
                   ('cup', .3, [100, 50, 40, 25])])
    ]
    result = run(
        OVLVISMetric(
            write(tmp_path, boxes, 2), backend=backend, classwise=True),
        samples)
    # Recall 0.5 at precision 1: 51 of the 101 recall points.
    cow = 51 / 101
    for kind in ('box', 'mask'):
        values = {
            k[len(f'ov_lvis/{kind}_'):]: v
            for k, v in result.items() if kind in k
        }
        assert values.pop('ap_cow') == pytest.approx(cow)
        assert values.pop('ap_bat (animal)') == 0
        assert values.pop('ap_cup') == pytest.approx(.3)
        # bus and yak have no ground truth: in no mean.
        assert values == pytest.approx(
            dict(
                ap=(cow + 0 + .3) / 3,
                ap50=(cow + 0 + 1) / 3,
                ap75=cow / 3,
                apr=0,
                apc=.3,
                apf=cow))


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('negative, partial, value', [
    (None, None, 1),
    (['cow'], None, .5),
    (['cow'], ['cow'], 1),
    (['bus'], None, 1),
])
def test_images_annotated_for_some_classes(tmp_path, backend, negative,
                                           partial, value):
    """A cow scored higher on an image where no cow is annotated."""
    ann_file = write(
        tmp_path, {
            (1, 'cow'): [[0, 0, 40, 40]],
            (2, 'cup'): [[0, 0, 40, 40]]
        },
        2,
        negative={2: negative or []},
        partial={2: partial or []})
    samples = [
        sample(1, [('cow', .5, [0, 0, 40, 40])]),
        sample(2, [('cow', .9, [0, 0, 40, 40])])
    ]
    result = run(OVLVISMetric(ann_file, backend=backend), samples)
    assert result['ov_lvis/box_apf'] == pytest.approx(value)
    assert result['ov_lvis/mask_apf'] == pytest.approx(value)
    assert result['ov_lvis/box_apc'] == 0


@pytest.mark.parametrize('backend', BACKENDS)
def test_unmatched_where_annotation_is_not_exhaustive(tmp_path, backend):
    """In the image of the cow itself, a second one is no false positive."""
    boxes = {(1, 'cow'): [[0, 0, 40, 40]]}
    samples = [
        sample(1, [('cow', .9, [100, 0, 40, 40]), ('cow', .5, [0, 0, 40, 40])])
    ]
    for partial, value in (({}, .5), ({1: ['cow']}, 1)):
        result = run(
            OVLVISMetric(
                write(tmp_path, boxes, 1, partial=partial), backend=backend),
            samples)
        assert result['ov_lvis/box_ap'] == pytest.approx(value)


@pytest.mark.parametrize('seed', range(4))
def test_backends_agree(tmp_path, seed):
    ann_file, samples = random_case(tmp_path, seed)
    results = [
        run(OVLVISMetric(ann_file, backend=b, classwise=True), samples)
        for b in BACKENDS
    ]
    assert 0 < results[0]['ov_lvis/mask_apr'] < 1
    assert 0 < results[0]['ov_lvis/box_ap'] < 1
    for other in results[1:]:
        assert results[0] == pytest.approx(other, abs=1e-9)
    assert len(results[0]) == 2 * (6 + len(CLASSES))


@pytest.mark.parametrize('iou_type, keys', [
    ('bbox',
     ('box_ap', 'box_ap50', 'box_ap75', 'box_apr', 'box_apc', 'box_apf')),
    ('segm', ('mask_ap', 'mask_ap50', 'mask_ap75', 'mask_apr', 'mask_apc',
              'mask_apf')),
])
def test_equals_lvis_as_it_stands(tmp_path, monkeypatch, iou_type, keys):
    """The package's own way through files, with np.float for this test."""
    ann_file, samples = random_case(tmp_path, 5)
    prefix = str(tmp_path / 'results')
    mine = run(OVLVISMetric(ann_file, outfile_prefix=prefix), samples)
    monkeypatch.setattr(np, 'float', float, raising=False)
    file = f"{prefix}.{'box' if iou_type == 'bbox' else 'mask'}.json"
    evaluation = lvis.LVISEval(ann_file, file, iou_type)
    evaluation.run()
    expected = [
        evaluation.get_results()[k]
        for k in ('AP', 'AP50', 'AP75', 'APr', 'APc', 'APf')
    ]
    assert [mine[f'ov_lvis/{k}'] for k in keys] == pytest.approx(
        expected, abs=1e-9)


def test_numpy_and_lvis_stay_as_they_are(tmp_path):
    ann_file, samples = random_case(tmp_path, 0)
    run(OVLVISMetric(ann_file, backend='lvis'), samples)
    assert not hasattr(np, 'float')
    assert importlib.import_module('lvis.eval').np is np


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_detections_is_zero(tmp_path, backend):
    ann_file, samples = random_case(tmp_path, 0)
    result = run(
        OVLVISMetric(ann_file, backend=backend),
        [sample(s.img_id, []) for s in samples])
    assert len(result) == 12 and set(result.values()) == {0.0}


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_ground_truth_is_nan(tmp_path, backend):
    ann_file = write(tmp_path, {}, 2, negative={1: ['cow']})
    result = run(
        OVLVISMetric(ann_file, backend=backend),
        [sample(1, [('cow', .5, [0, 0, 9, 9])]),
         sample(2, [])])
    assert all(np.isnan(v) for v in result.values())


@pytest.mark.parametrize('backend', BACKENDS)
def test_one_image_and_encoded_masks(tmp_path, backend):
    ann_file = write(tmp_path, {(1, 'yak'): [[3, 4, 50, 60]]}, 1)
    result = run(
        OVLVISMetric(ann_file, backend=backend),
        [sample(1, [('yak', .2, [3, 4, 50, 60])], encoded=True)])
    assert result['ov_lvis/box_apr'] == pytest.approx(1)
    assert result['ov_lvis/mask_apr'] == pytest.approx(1)
    assert np.isnan(result['ov_lvis/box_apf'])


def of_one_class(scores, boxes, images=None):
    count = len(scores)
    return LVISDetections(
        np.array(images or [1] * count), np.full(count, 4), np.array(scores),
        np.array(boxes, float))


def one_object(num_images=1):
    """An object of class 4 in the first image."""
    return dict(
        images=[
            dict(
                id=i,
                height=9,
                width=9,
                neg_category_ids=[] if i == 1 else [4],
                not_exhaustive_category_ids=[])
            for i in range(1, num_images + 1)
        ],
        categories=CATEGORIES[:2],
        annotations=[
            dict(id=1, image_id=1, category_id=4, bbox=[0, 0, 5, 5], area=25)
        ])


@pytest.mark.parametrize('backend', BACKENDS)
def test_300_best_detections_with_an_area(backend):
    right, wrong, empty = [0, 0, 5, 5], [6, 6, 3, 3], [0, 0, 0, 5]
    found = of_one_class([.1] * 2 + [.8] * 199 + [.9] * 100,
                         [right] * 2 + [wrong] * 199 + [empty] * 100)
    kept = evaluated(found, one_object(), 'bbox', fixed=False)
    assert [d['id'] for d in kept.as_dicts('bbox')] == list(range(1, 201))
    assert kept.boxes[-1].tolist() == right
    # The right one comes last of 200 that have an area.
    values = PRECISIONS[backend](one_object(), kept, 'bbox')
    assert values.shape == (10, 101, 2)
    np.testing.assert_allclose(values[:, :, 0], 1 / 200)
    assert (values[:, :, 1] == -1).all()


@pytest.mark.parametrize('backend', BACKENDS)
def test_fixed_ap_has_no_limit_per_image_and_one_per_class(backend):
    """The right one is the 400th of its image, and the 10,000th of all."""
    right, wrong = [0, 0, 5, 5], [6, 6, 3, 3]
    for others, value in ((9600, 1 / 10000), (9601, 0)):
        found = of_one_class([.5] * 399 + [.4] + [.9] * others,
                             [wrong] * 399 + [right] + [wrong] * others,
                             [1] * 400 + [2] * others)
        truth = one_object(2)
        assert len(evaluated(found, truth, 'bbox', fixed=False).scores) == 600
        kept = evaluated(found, truth, 'bbox', fixed=True)
        assert len(kept.scores) == 10000
        np.testing.assert_allclose(
            PRECISIONS[backend](truth, kept, 'bbox')[:, :, 0], value)


def test_fixed_ap_of_the_metric(tmp_path):
    """An image whose 300 best are of another class."""
    ann_file = write(
        tmp_path, {(1, 'cow'): [[0, 0, 9, 9]]}, 1, negative={1: ['cup']})
    samples = [
        sample(
            1,
            [('cup', .9, [20, 20, 5, 5])] * 300 + [('cow', .1, [0, 0, 9, 9])],
            encoded=True)
    ]
    for fixed, value in ((False, 0), (True, 1)):
        result = run(OVLVISMetric(ann_file, fixed_ap=fixed), samples)
        for kind in ('box', 'mask'):
            assert result[f'ov_lvis/{kind}_ap'] == pytest.approx(value)


def test_what_is_counted_is_annotated(tmp_path):
    """Classes of no box and not known to be absent are left out."""
    truth = one_object(3)
    truth['images'][2]['neg_category_ids'] = [7, 999]
    found = LVISDetections(
        np.array([1, 1, 2, 2, 3, 3]), np.array([4, 7, 4, 7, 4, 7]),
        np.full(6, .5), np.ones((6, 4)))
    kept = evaluated(found, truth, 'bbox', fixed=False)
    assert list(zip(kept.image_ids, kept.category_ids)) == [(1, 4), (2, 4),
                                                            (3, 7)]


def test_boxes_alone_need_no_masks(tmp_path):
    ann_file, samples = random_case(tmp_path, 1)
    whole = run(OVLVISMetric(ann_file), samples)
    for s in samples:
        del s.pred_instances.masks
    boxes = run(OVLVISMetric(ann_file, kinds=('box', )), samples)
    assert boxes == {k: v for k, v in whole.items() if 'box' in k}
    with pytest.raises(ValueError, match="kinds=\\('box', \\)"):
        run(OVLVISMetric(ann_file), samples)


def test_classes_that_the_file_lacks(tmp_path):
    """Other detections keep their class; those of the class do not count."""
    ann_file = write(tmp_path, {(1, 'cow'): [[0, 0, 9, 9]]}, 1)
    samples = [
        sample(1, [('cow', .5, [0, 0, 9, 9]), ('yak', .9, [0, 0, 9, 9])])
    ]
    classes = ('cow', 'bat (animal)', 'bus', 'cup', 'unicorn')
    result = run(OVLVISMetric(ann_file), samples, classes)
    assert result['ov_lvis/box_ap'] == pytest.approx(1)
    with pytest.raises(ValueError, match='none of them'):
        run(OVLVISMetric(ann_file), samples, ('unicorn', ))


@pytest.mark.parametrize('backend', BACKENDS)
def test_an_image_of_600_masks(tmp_path, backend):
    """The right one is the 300th by score; the 301st would be too late."""
    ann_file = write(tmp_path, {(1, 'cow'): [[0, 0, 9, 9]]}, 1)
    for rank in (300, 301):
        detections = [('cow', 1 - i / 1000, [20, 20, 5, 5])
                      for i in range(600)]
        detections[rank - 1] = ('cow', detections[rank - 1][1], [0, 0, 9, 9])
        result = run(
            OVLVISMetric(ann_file, backend=backend),
            [sample(1, detections, encoded=True)])
        for kind in ('box', 'mask'):
            assert result[f'ov_lvis/{kind}_ap'] == pytest.approx(
                1 / 300 if rank == 300 else 0)


@pytest.mark.parametrize('backend', BACKENDS)
def test_ids_from_zero(tmp_path, backend):
    ann_file = write(tmp_path, {(1, 'cow'): [[0, 0, 9, 9]]}, 1)
    text = json.dumps(json.load(open(ann_file)))
    text = text.replace('"category_id": 7', '"category_id": 0').replace(
        '{"id": 7, "name": "cow"',
        '{"id": 0, "name": "cow"').replace('"annotations": [{"id": 1',
                                           '"annotations": [{"id": 0')
    assert text.count('"id": 0') == 2 and '"category_id": 0' in text
    (tmp_path / 'zero.json').write_text(text)
    result = run(
        OVLVISMetric(str(tmp_path / 'zero.json'), backend=backend),
        [sample(1, [('cow', .5, [0, 0, 9, 9])])])
    assert result['ov_lvis/box_apf'] == pytest.approx(1)
    assert result['ov_lvis/mask_apf'] == pytest.approx(1)


def test_ids_of_images_that_are_null_or_text(tmp_path):
    ann_file, samples = random_case(tmp_path, 0)
    right = run(OVLVISMetric(ann_file), samples)
    content = json.loads((tmp_path / 'lvis.json').read_text())
    for image in content['images']:
        for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
            image[key] = list(map(str, image[key])) or None
    (tmp_path / 'lvis.json').write_text(json.dumps(content))
    assert run(OVLVISMetric(ann_file), samples) == pytest.approx(
        right, nan_ok=True)
    content['images'][0]['neg_category_ids'] = [1.5]
    (tmp_path / 'lvis.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'neg_category_ids' contains 1\.5"):
        OVLVISMetric(ann_file)


@pytest.mark.parametrize('mask', [None, [], {}])
def test_annotations_without_a_mask(tmp_path, mask):
    ann_file, samples = random_case(tmp_path, 0)
    content = json.loads((tmp_path / 'lvis.json').read_text())
    content['annotations'][1]['segmentation'] = mask
    (tmp_path / 'lvis.json').write_text(json.dumps(content))
    with pytest.raises(
            ValueError, match=r'annotations\[1\] .*expected .*segmentation'):
        OVLVISMetric(ann_file)
    OVLVISMetric(ann_file, kinds=('box', ))


def test_wrong_input(tmp_path):
    ann_file, samples = random_case(tmp_path, 0)
    with pytest.raises(ValueError, match="kinds.*'boxes'"):
        OVLVISMetric(ann_file, kinds=('boxes', ))
    with pytest.raises(ValueError, match='backend.*slow'):
        OVLVISMetric(ann_file, backend='slow')
    with pytest.raises(ValueError, match='for instance 99'):
        run(OVLVISMetric(ann_file), [sample(99, [])])
    with pytest.raises(ValueError, match='labels'):
        run(OVLVISMetric(ann_file), samples, CLASSES[:2])
    with pytest.raises(ValueError, match="\\['classes'\\]"):
        run(OVLVISMetric(ann_file), samples, ())
    coco = tmp_path / 'coco.json'
    coco.write_text(
        json.dumps(
            dict(
                images=[dict(id=1, height=9, width=9)],
                categories=[dict(id=1, name='a', frequency='f')],
                annotations=[])))
    with pytest.raises(ValueError, match='neg_category_ids'):
        OVLVISMetric(str(coco))
