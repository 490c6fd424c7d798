# Licensed under the Apache License, Version 2.0.
"""An image tower of a backbone and a head, against plain formulas."""
import mmdet_clim  # noqa: F401  isort: skip
import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.models.backbones import BackboneTower
from mmdet_clim.models.maps import resized_map
from mmdet_clim.models.necks import FusedMap

BACKBONE = dict(
    type='mmdet_clim.TimmBackbone',
    model='test_resnet',
    out_indices=(1, 2, 3),
    frozen=True)


@pytest.fixture(scope='module')
def tower():
    torch.manual_seed(0)
    return BackboneTower(BACKBONE, embed_dim=12, hidden=16).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def fused(tower, images):
    """By hand: of three maps, the middle one's stride."""
    fine, middle, coarse = tower.backbone(images)
    return torch.cat([
        F.avg_pool2d(fine, 2), middle,
        F.interpolate(coarse, scale_factor=2., mode='bilinear')
    ], 1)


def test_regions_positions_and_whole_images(tower, images):
    _, encoded = tower.encode(images)
    maps = fused(tower, images)
    torch.testing.assert_close(encoded.features, maps)
    stride = tower.stride
    assert stride == tower.backbone.strides[1]

    def embedding(features):
        return F.normalize(tower.visual(features), dim=1)

    torch.testing.assert_close(
        tower.image_embeddings_of(encoded), embedding(maps.mean((2, 3))))
    dense = tower.dense_features_of(encoded)
    torch.testing.assert_close(dense[1, :, 2, 1],
                               embedding(maps[1:, :, 2, 1])[0])
    # Cells 1 and 2 of rows 0 and 1, whole ones.
    roi = torch.tensor([[1., stride, 0, 3 * stride, 2 * stride]])
    torch.testing.assert_close(
        tower.region_features_of(encoded, roi),
        embedding(maps[1:, :, :2, 1:3].mean((2, 3))),
        rtol=1e-4,
        atol=1e-4)
    assert tower.region_features_of(encoded, roi[:0]).shape == (0, 12)


def test_odd_sizes_are_padded(tower):
    image = torch.rand(1, 3, 50, 70)
    side = max(tower.tap_strides)
    padded = F.pad(image, (0, -70 % side, 0, -50 % side))
    torch.testing.assert_close(
        tower.dense_features(image), tower.dense_features(padded))


def test_only_the_head_is_trained(tower, images):
    assert tower.native_size == 128
    assert {n.partition('.')[0] for n, _ in tower.named_parameters()} == \
        {'visual'}
    tower.train()
    assert tower.visual.training and not tower.backbone.training
    tower.eval()


def test_the_head_of_a_checkpoint(tower, tmp_path):
    path = tmp_path / 'clip.pth'
    weights = {f'image_tower.{k}': v for k, v in tower.state_dict().items()}
    torch.save(dict(state_dict=weights), path)
    other = BackboneTower(
        BACKBONE, embed_dim=12, hidden=16, pretrained=str(path))
    for one, two in zip(other.visual.parameters(), tower.visual.parameters()):
        assert torch.equal(one, two)
    torch.save(dict(state_dict={'detector.a': torch.ones(1)}), path)
    with pytest.raises(ValueError, match='weights of a CLIMOnCLIP'):
        BackboneTower(BACKBONE, embed_dim=12, pretrained=str(path))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        BackboneTower(BACKBONE, embed_dim=12, pretrained='none.pth')


def test_maps_are_resized_both_ways():
    x = torch.arange(16.).view(1, 1, 4, 4)
    assert resized_map(x, (4, 4)) is x
    assert resized_map(x, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    # From a padded image the rows may not divide evenly.
    assert resized_map(torch.ones(1, 1, 5, 3), (3, 2)).flatten().tolist() == \
        [1.] * 6
    assert resized_map(x, (8, 8)).shape == (1, 1, 8, 8)


def test_the_neck_by_hand():
    torch.manual_seed(0)
    neck = FusedMap([2, 4], 3, level=0)
    maps = torch.randn(2, 2, 8, 6), torch.randn(2, 4, 4, 3)
    out, = neck(maps)
    one = F.layer_norm(maps[0], maps[0].shape[1:])
    two = F.interpolate(
        F.layer_norm(maps[1], maps[1].shape[1:]),
        scale_factor=2.,
        mode='bilinear')
    wanted = torch.einsum('oc,nchw->nohw', neck.mix.weight[:, :, 0, 0],
                          torch.cat([one, two], 1))
    wanted = wanted + neck.mix.bias[:, None, None]
    torch.testing.assert_close(out, wanted.relu(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match='level: expected 0 to 1, got 2'):
        FusedMap([2, 4], 3, level=2)
