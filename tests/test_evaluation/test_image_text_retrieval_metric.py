# Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from mmengine.registry import METRICS

import mmdet_clim  # noqa: F401
from mmdet_clim.evaluation import ImageTextRetrievalMetric
from mmdet_clim.evaluation import image_text_retrieval_metric as module


def sample(image, **texts):
    return dict(
        captions=[list(texts)],
        pred_pair=dict(
            image=torch.tensor([image]),
            texts=torch.tensor([list(texts.values())])))


def evaluate(samples, **kwargs):
    metric = METRICS.build(
        dict(type='mmdet_clim.ImageTextRetrievalMetric', **kwargs))
    metric.process({}, samples)
    return metric.evaluate(len(samples))


SAMPLES = [
    # Its own nearest; 'b' is nearer to the third image.
    sample([1., 0.], a=[1., 0.], b=[.6, .8]),
    dict(pred_regions={}),
    # The nearest text is 'a', which the image has not.
    sample([.96, -.28], c=[0., -1.]),
    sample([.6, .8], d=[.8, .6]),
]


def test_both_directions_by_hand():
    found = evaluate(SAMPLES, topk=(1, 2))
    assert found == pytest.approx({
        # The third's nearest text is 'b' (1.0) and then 'd' (.96).
        'retrieval/image_to_text_r1': 1 / 3,
        'retrieval/image_to_text_r2': 2 / 3,
        # a: the first. b: the third, then the first. c: the second.
        # d: the third (.96), not the first (.8).
        'retrieval/text_to_image_r1': 3 / 4,
        'retrieval/text_to_image_r2': 1,
    })


def test_equal_captions_belong_to_every_image_that_has_them():
    twice = [sample([1., 0.], x=[0., 1.]), sample([0., 1.], x=[0., 1.])]
    found = evaluate(twice)
    assert set(found.values()) == {1}


def test_chunks_give_the_same(monkeypatch):
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, 9, 4), dim=2)
    args = vectors[0], vectors[1], torch.eye(9, dtype=torch.bool), (1, 3, 20)
    whole = module.recalls(*args)
    order = (vectors[0] @ vectors[1].t()).argsort(1, descending=True)
    places = (order == torch.arange(9)[:, None]).float().argmax(1)
    assert whole == pytest.approx([(places < k).float().mean().item()
                                   for k in (1, 3, 20)])
    monkeypatch.setattr(module, 'CHUNK', 2)
    assert module.recalls(*args) == whole


def test_what_can_not_be_measured_is_said():
    with pytest.raises(ValueError, match='at least one captioned image'):
        evaluate([dict(pred_regions={})])
    with pytest.raises(ValueError, match='finite'):
        evaluate([sample([math.nan, 0.], a=[0., 1.])])
    with pytest.raises(ValueError, match='topk'):
        ImageTextRetrievalMetric(topk=())
