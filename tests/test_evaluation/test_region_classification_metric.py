# Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

import mmdet_clim  # noqa: F401
from mmdet_clim.evaluation import RegionClassificationMetric
from mmdet_clim.evaluation import region_classification_metric as module

META = dict(
    classes=('cat', 'dog', 'sky'),
    thing_classes=('cat', 'dog'),
    stuff_classes=('sky', ))


def sample(labels, **cosines):
    return dict(
        gt_instances=dict(labels=torch.tensor(labels, dtype=torch.long)),
        pred_regions={
            k: torch.tensor(v)
            for k, v in cosines.items()
        })


def evaluate(samples, meta=META, **kwargs):
    metric = METRICS.build(
        dict(type='mmdet_clim.RegionClassificationMetric', **kwargs))
    metric.dataset_meta = meta
    metric.process({}, samples)
    return metric.evaluate(len(samples))


@pytest.fixture
def logged(caplog):
    """What MMEngine's logger says."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_mean_per_class_of_each_way_and_group(logged):
    right, wrong = [.9, .5, .1], [.1, .5, .9]
    samples = [
        # two cats, one right; a dog that is second of three; a sky, right
        sample([0, 0, 1],
               roi=[right, wrong, right],
               crop=[right, right, right]),
        dict(pred_pair={}),  # a captioned image
        sample([2], roi=[wrong], crop=[right]),
        sample([]),
    ]
    found = evaluate(samples, topk=(1, 2, 5))
    assert found == pytest.approx({
        'region/roi_all_top1': (.5 + 0 + 1) / 3,
        'region/roi_all_top2': (.5 + 1 + 1) / 3,
        'region/roi_all_top5': 1,
        'region/roi_things_top1': .25,
        'region/roi_things_top2': .75,
        'region/roi_things_top5': 1,
        'region/roi_stuff_top1': 1,
        'region/roi_stuff_top2': 1,
        'region/roi_stuff_top5': 1,
        'region/crop_all_top1': 1 / 3,
        'region/crop_all_top2': 2 / 3,
        'region/crop_all_top5': 1,
        'region/crop_things_top1': .5,
        'region/crop_things_top2': 1,
        'region/crop_things_top5': 1,
        'region/crop_stuff_top1': 0,
        'region/crop_stuff_top2': 0,
        'region/crop_stuff_top5': 1,
    })
    assert '| roi  | things  | 2/2          | 3       | 25.0' in logged.text


def test_base_and_novel_classes():
    meta = dict(
        classes=('cat', 'dog'),
        base_classes=('cat', ),
        novel_classes=('dog', ))
    found = evaluate([sample([0, 1], roi=[[.2, .1], [.2, .1]])], meta)
    assert found['region/roi_base_top1'] == 1
    assert found['region/roi_novel_top1'] == 0


def test_a_vocabulary_of_one_class_and_an_absent_group(logged):
    meta = dict(
        classes=('cat', 'sky'),
        thing_classes=('cat', ),
        stuff_classes=('sky', ))
    found = evaluate([sample([0], roi=[[.1, .2]])], meta)
    assert 'region/roi_stuff_top1' not in found
    assert "no class of the group 'stuff'" in logged.text
    found = evaluate([sample([0], roi=[[.1]])], dict(classes=('cat', )))
    assert found == {'region/roi_all_top1': 1, 'region/roi_all_top5': 1}
    # What is not a number is a miss, however large k is.
    found = evaluate([sample([0], roi=[[math.nan]])], dict(classes=('cat', )))
    assert found == {'region/roi_all_top1': 0, 'region/roi_all_top5': 0}


def test_places_against_a_stable_sort():
    torch.manual_seed(0)
    cosines = torch.randint(0, 5, (40, 7)).float()  # with equal values
    labels = torch.randint(0, 7, (40, ))
    order = cosines.argsort(dim=1, descending=True, stable=True)
    expected = (order == labels[:, None]).float().argmax(1)
    assert torch.equal(module.true_class_places(cosines, labels), expected)
    cosines[3, 2] = math.nan
    assert module.true_class_places(cosines, labels)[3] > 1e9


@pytest.mark.parametrize('samples, meta, match', [
    ([], META, None),
    ([dict(pred_pair={})], META, 'none of 1 samples has'),
    ([sample([])], META, 'none of 1 samples has'),
    ([sample([0], roi=[[.1, .2]])], META, 'model has 2 classes.*set 3'),
    ([sample([0], roi=[[.1]])], {}, "dataset_meta.'classes'"),
])
def test_what_can_not_be_measured_is_said(samples, meta, match):
    with pytest.raises(ValueError, match=match):
        evaluate(samples, meta)
    with pytest.raises(ValueError, match='topk'):
        RegionClassificationMetric(topk=(0, ))


def test_the_regions_of_an_unreadable_image_are_wrong():
    right = [.9, .5, .1]
    samples = [
        sample([0, 0], roi=[right, right]),
        dict(sample([0], roi=[right]), unreadable=True)
    ]
    found = evaluate(samples, topk=(1, 5))
    assert found['region/roi_all_top1'] == pytest.approx(2 / 3)
    assert found['region/roi_all_top5'] == pytest.approx(2 / 3)
