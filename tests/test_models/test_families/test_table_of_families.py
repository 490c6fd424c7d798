# Licensed under the Apache License, Version 2.0.
"""Families of detectors: which maps are theirs, and in which order."""
import pytest
import torch
from torch import nn

from mmdet_clim.models.families import FAMILIES, DetectorFamily, family_of
from mmdet_clim.models.region_readers import DenseFeatureReader


class Plain(nn.Module):
    """The image is its feature map."""

    def extract_feat(self, inputs):
        return (inputs, )


class Doubled(Plain):
    """A family that gives each map twice."""

    def extract_feat(self, inputs):
        return (torch.cat([inputs, inputs]), )


class DoubledFamily(DetectorFamily):
    """The first of its maps."""

    detector_type = Doubled

    def feature_maps(self, detector, inputs):
        return [m[:len(inputs)] for m in detector.extract_feat(inputs)]


@pytest.fixture
def with_doubled():
    FAMILIES.insert(0, DoubledFamily())
    yield
    FAMILIES.pop(0)


def test_a_family_says_how_to_get_its_maps(with_doubled):
    images = torch.randn(2, 3, 8, 8)

    class Heir(Doubled):
        pass

    for detector in (Plain(), Doubled(), Heir()):
        # Every reader follows.
        level, = DenseFeatureReader().extract_feat(detector, images).levels
        assert torch.equal(level, images)


def test_no_family_is_hidden_by_one_before_it():
    """From the special to the general: a later type heirs no earlier one."""
    kinds = [family.detector_type for family in FAMILIES]
    assert len(set(kinds)) == len(kinds)
    for index, kind in enumerate(kinds):
        assert not any(issubclass(kind, before) for before in kinds[:index])
    assert family_of(nn.Linear(1, 1)) is FAMILIES[-1]
