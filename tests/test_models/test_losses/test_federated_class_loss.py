# Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.losses import BaseClassSigmoidLoss, FederatedClassLoss

NAMES = tuple('abcdef')


def federated(counts=(9, 100, 4, 1, 16, 0), base=NAMES[:5], **kwargs):
    loss = FederatedClassLoss(**kwargs)
    loss.set_classes(ClassTexts(Vocabulary(NAMES, base, counts)))
    return loss


def test_present_classes_and_as_many_others_as_are_missing():
    loss = federated(num_sampled=3)
    labels = torch.tensor([2, 6, 2, 3])
    for _ in range(20):
        chosen = loss.draw(labels)
        assert chosen.sum() == 3
        assert chosen[2] == chosen[3] == 1
        assert chosen[5] == 0


def test_drawn_by_the_square_root_of_the_image_counts():
    """One draw: 3, 10, 2, 1 and 4 of 20."""
    torch.manual_seed(0)
    loss = federated(num_sampled=1)
    nothing = torch.tensor([6])
    share = sum(loss.draw(nothing) for _ in range(4000)) / 4000
    expected = torch.tensor([3, 10, 2, 1, 4, 0]) / 20
    torch.testing.assert_close(share, expected, atol=.03, rtol=0)


def test_without_counts_all_base_classes_are_alike():
    torch.manual_seed(0)
    loss = federated(counts=None, base=NAMES[:4], num_sampled=1)
    share = sum(loss.draw(torch.tensor([6])) for _ in range(4000)) / 4000
    expected = torch.tensor([1, 1, 1, 1, 0, 0]) / 4
    torch.testing.assert_close(share, expected, atol=.03, rtol=0)


def test_value_is_the_plain_formula_over_the_chosen_classes(monkeypatch):
    loss = federated(num_sampled=2, loss_weight=3.)
    chosen = torch.tensor([1., 0, 0, 1, 0, 0])
    monkeypatch.setattr(loss, 'draw', lambda labels: chosen)
    scores = torch.randn(4, 6)
    labels = torch.tensor([0, 6, 3, 6])
    expected = sum(
        F.binary_cross_entropy_with_logits(scores[i, c],
                                           torch.tensor(float(labels[i] == c)))
        for i in range(4) for c in (0, 3))
    torch.testing.assert_close(
        loss(scores, labels, avg_factor=4.), 3 * expected / 4)


def test_a_set_of_every_base_class_is_the_base_class_loss():
    plain = BaseClassSigmoidLoss()
    plain.set_classes(ClassTexts(Vocabulary(NAMES, NAMES[:4])))
    # b has no training image: it is never drawn.
    loss = federated(counts=(9, 1, 4, 1, 16, 0), base=NAMES[:4])
    scores, labels = torch.randn(5, 6), torch.tensor([0, 6, 3, 6, 6])
    torch.testing.assert_close(loss(scores, labels), plain(scores, labels))


def test_more_present_than_sampled_and_nothing_at_all():
    loss = federated(num_sampled=1)
    assert loss.draw(torch.tensor([0, 1, 2])).tolist() == [1, 1, 1, 0, 0, 0]
    empty = loss(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))
    assert empty == 0


def test_background_alone_and_one_proposal():
    loss = federated(num_sampled=50)
    value = loss(torch.zeros(1, 6), torch.tensor([6]))
    # Five base classes at p = 0.5.
    torch.testing.assert_close(value, 5 * torch.tensor(2.).log())


def test_wrong_input():
    with pytest.raises(ValueError, match='num_sampled'):
        FederatedClassLoss(num_sampled=0)
    with pytest.raises(ValueError, match='image count'):
        Vocabulary(NAMES, NAMES, (1, 2))
