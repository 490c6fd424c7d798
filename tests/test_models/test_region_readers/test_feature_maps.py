# Licensed under the Apache License, Version 2.0.
"""Which maps are a detector's; TridentNet's: see the readers' tests."""
import torch
from torch import nn

from mmdet_clim.models.region_readers import DenseFeatureReader
from mmdet_clim.models.region_readers.features import feature_maps


class Plain(nn.Module):
    """The image is its feature map."""

    def extract_feat(self, inputs):
        return (inputs, )


class Doubled(Plain):
    """A family that gives each map twice."""

    def extract_feat(self, inputs):
        return (torch.cat([inputs, inputs]), )


def test_a_family_says_how_to_get_its_maps():
    images = torch.randn(2, 3, 8, 8)
    assert feature_maps(Plain(), images)[0] is images
    assert len(feature_maps(Doubled(), images)[0]) == 4

    @feature_maps.register
    def _first(detector: Doubled, inputs):
        return tuple(m[:len(inputs)] for m in detector.extract_feat(inputs))

    class Heir(Doubled):
        pass

    for detector in (Doubled(), Heir()):
        # Every reader follows.
        level, = DenseFeatureReader().extract_feat(detector, images).levels
        assert torch.equal(level, images)
