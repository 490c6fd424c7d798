# Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch

from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.losses import BaseClassSoftmaxLoss

VOCABULARY = Vocabulary(('cat', 'dog', 'cow'), ('cat', 'cow'))
LOGITS = torch.tensor([[1., 9., 0., 2.], [0., 9., 3., 1.]])


def loss_fn(**kwargs):
    loss = BaseClassSoftmaxLoss(**kwargs)
    loss.set_classes(ClassTexts(VOCABULARY))
    return loss


def nll(*logits):
    """Of the first logit."""
    return math.log(sum(math.exp(x) for x in logits)) - logits[0]


def test_by_hand():
    """The novel dog is not in the softmax; background weighs half."""
    loss = loss_fn(background_weight=.5)
    expected = [nll(1, 0, 2), .5 * nll(1, 0, 3)]
    labels = torch.tensor([0, 3])
    torch.testing.assert_close(
        loss(LOGITS, labels, reduction_override='none'),
        torch.tensor(expected))
    assert loss(LOGITS, labels).item() == pytest.approx(sum(expected) / 2)
    weighted = loss(
        LOGITS, labels, label_weights=torch.tensor([2., 1.]), avg_factor=4)
    assert weighted.item() == pytest.approx(
        (2 * expected[0] + expected[1]) / 4)
    assert loss(
        LOGITS, labels,
        reduction_override='sum').item() == pytest.approx(sum(expected))


def test_novel_classes_get_neither_loss_nor_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss = loss_fn()(logits, torch.tensor([1, 0]), reduction_override='none')
    assert loss[0] == 0
    loss.sum().backward()
    assert torch.equal(logits.grad[:, 1], torch.zeros(2))
    assert logits.grad[1].abs().sum() > 0 and torch.isfinite(loss).all()


def test_at_test_time_all_classes_compete():
    loss = loss_fn()
    assert loss.get_cls_channels(3) == 4
    torch.testing.assert_close(loss.get_activation(LOGITS), LOGITS.softmax(1))
    accuracy = loss.get_accuracy(LOGITS, torch.tensor([1, 3]))
    assert accuracy['acc_classes'].item() == 100


def test_no_proposals():
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = loss_fn()(logits, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0


def test_wrong_weight():
    with pytest.raises(ValueError, match='background_weight.*got -1'):
        BaseClassSoftmaxLoss(background_weight=-1)
