# Licensed under the Apache License, Version 2.0.
import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from torch import nn

from mmdet_clim.models.unset_weights import (
    not_a_number_in_new_memory,
    set_what_was_left_unset,
)


def test_weights_that_only_a_checkpoint_sets():
    """Such as those of a TridentConv, which is memory as it was."""
    with not_a_number_in_new_memory():
        model = nn.ModuleDict(
            dict(linear=nn.Linear(2, 3), conv=TridentConv(4, 64, 3)))
    assert not torch.are_deterministic_algorithms_enabled()
    linear, conv = model['linear'], model['conv']
    assert conv.weight.isnan().all()
    before = linear.weight.clone()
    assert set_what_was_left_unset(model) == ['conv.weight']
    assert .009 < conv.weight.std() < .011
    assert torch.equal(linear.weight, before)
    assert set_what_was_left_unset(model) == []
