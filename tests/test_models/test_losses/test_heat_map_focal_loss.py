# Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch

from mmdet_clim.models.losses import HeatMapFocalLoss


def test_by_hand():
    """Constants of REFERENCE.md, section 2: alpha .25, weights .5 and .5."""
    pred = torch.tensor([[.5], [.2], [.9], [.8], [.9]], requires_grad=True)
    # A centre, near it, far from it and ignored, far from it, near one.
    target = torch.tensor([[1.], [.5], [0.], [0.], [.5]])
    loss = HeatMapFocalLoss()(
        pred,
        target,
        pos_inds=torch.tensor([0, 3, 0]),
        pos_labels=torch.tensor([0, 0, 0]),
        avg_factor=3.)
    positive = 2 * .5**2 * -math.log(.5) + .2**2 * -math.log(.8)
    negative = (.5**4 * .2**2 * -math.log(.8) + .8**2 * -math.log(.2))
    assert loss.item() == pytest.approx(
        (.5 * .25 * positive + .5 * .75 * negative) / 3, rel=1e-5)
    loss.backward()
    assert pred.grad[2] == pred.grad[4] == 0  # above 0.85
    assert pred.grad[1] > 0 > pred.grad[0]


def test_without_a_positive_cell():
    pred = torch.tensor([[.25], [.86]])
    loss = HeatMapFocalLoss(loss_weight=2.)(pred, torch.zeros(2, 1))
    assert loss.item() == pytest.approx(2 * .375 * .25**2 * -math.log(.75))


def test_other_constants():
    pred, target = torch.tensor([[.9, .5]]), torch.tensor([[.5, 0.]])
    loss = HeatMapFocalLoss(
        alpha=.5, beta=1., gamma=1., neg_weight=2., ignore_high_fp=1.)(pred,
                                                                       target)
    assert loss.item() == pytest.approx(.5 * .9 * -math.log(.1) +
                                        .5 * -math.log(.5))
    with pytest.raises(ValueError, match='ignore_high_fp: .* got 0'):
        HeatMapFocalLoss(ignore_high_fp=0)
