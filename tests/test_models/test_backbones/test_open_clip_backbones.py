# Licensed under the Apache License, Version 2.0.
"""Frozen towers as backbones: levels, what is saved, what is trained."""
import logging

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.logging import MMLogger
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_clim.models.backbones import (
    DenseImageTower,
    OpenCLIPResNet,
    OpenCLIPViT,
)
from mmdet_clim.registry import MODELS

NORM = dict(type='GN', num_groups=4)


def build(clip_files, name='vit', **kwargs):
    model, weights = clip_files(name)
    resnet = name in ('resnet', 'timm_convnext')
    kind = OpenCLIPResNet if resnet else OpenCLIPViT
    if not resnet:
        kwargs.setdefault('norm_cfg', NORM)
    return kind(model, weights, **kwargs)


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_levels_of_a_vit(clip_files):
    backbone = build(clip_files, taps=(0, 1, 1, 2))
    batch = images(2, 3, 64, 48)
    levels = backbone(batch)
    # Patches of 8 pixels: levels of 2, 4, 8 and 16.
    assert [tuple(x.shape) for x in levels] == [(2, 32, 32, 24),
                                                (2, 32, 16, 12), (2, 32, 8, 6),
                                                (2, 32, 4, 3)]
    assert all(x.is_contiguous() for x in levels)
    assert backbone.out_channels == [32] * 4
    assert backbone.strides == [2, 4, 8, 16]
    # By open_clip's own function; the last map is that of the value path.
    visual = backbone.tower.visual.eval()
    with torch.no_grad():
        visual_maps = visual.forward_intermediates(
            images(2, 3, 32, 32), indices=[0, 1],
            output_fmt='NCHW')['image_intermediates']
        levels = backbone(images(2, 3, 32, 32))
    torch.testing.assert_close(levels[2], visual_maps[1], rtol=1e-4, atol=1e-5)
    first, norm, gelu, second = backbone.levels[0]
    assert isinstance(norm, nn.GroupNorm) and isinstance(gelu, nn.GELU)
    torch.testing.assert_close(
        levels[0],
        second(gelu(norm(first(visual_maps[0])))),
        rtol=1e-4,
        atol=1e-5)
    torch.testing.assert_close(
        levels[1], backbone.levels[1](visual_maps[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('quick', [False, True])
def test_a_detector_chooses_the_activation(clip_files, quick):
    """The published F-ViT runs OpenAI's weights with plain GELU."""
    backbone = build(clip_files, taps=(0, 0, 1, 2), quick_gelu=quick)
    tower = DenseImageTower(*clip_files('vit'), quick_gelu=quick).eval()
    batch = images(1, 3, 32, 32)
    maps, encoded = backbone.encode(batch)
    for own, expected in zip(maps, tower.encode(batch, (0, 0, 1, 2))[0]):
        torch.testing.assert_close(own, expected)
    rois = torch.tensor([[0., 3, 4, 28, 20]])
    torch.testing.assert_close(
        backbone.region_features_of(encoded, rois),
        tower.region_features(batch, rois))
    other = build(clip_files, taps=(0, 0, 1, 2), quick_gelu=not quick)
    assert (maps[2] - other.encode(batch)[0][2]).abs().max() > 1e-4
    # The weights are the same, and so is the number that stands for them.
    assert torch.equal(backbone.tower_sum, other.tower_sum)


@pytest.mark.parametrize('depth, taps', [(12, (3, 5, 7, 11)),
                                         (24, (7, 11, 15, 23)),
                                         (3, (0, 0, 1, 2)), (1, (0, 0, 0, 0))])
def test_default_taps(depth, taps):
    assert tuple(OpenCLIPViT.default_taps(depth)) == taps


@pytest.mark.parametrize('name', ['resnet', 'timm_convnext'])
def test_levels_of_a_resnet(clip_files, name):
    backbone = build(clip_files, name)
    levels = backbone(images(1, 3, 64, 96))
    assert all(x.is_contiguous() for x in backbone(images(2, 3, 64, 96)))
    assert backbone.strides == [4, 8, 16, 32]
    assert [tuple(x.shape[2:]) for x in levels] == [(16, 24), (8, 12), (4, 6),
                                                    (2, 3)]
    assert [x.shape[1] for x in levels] == backbone.out_channels
    if name == 'resnet':
        visual = backbone.tower.visual
        with torch.no_grad():
            expected = visual.forward_intermediates(images(
                1, 3, 64, 64))['image_intermediates'][1:]
            found = backbone(images(1, 3, 64, 64))
        for ours, theirs in zip(found, expected):
            torch.testing.assert_close(ours, theirs)


def test_a_frozen_tower_is_neither_trained_nor_saved(clip_files):
    backbone = build(clip_files)
    backbone.train()
    assert not backbone.tower.training
    names = [name for name, _ in backbone.named_parameters()]
    assert names and all(name.startswith('levels') for name in names)
    assert set(backbone.state_dict()) == {*names, 'tower_sum'}
    batch = images(1, 3, 32, 32).requires_grad_()
    sum(level.sum() for level in backbone(batch)).backward()
    assert batch.grad is None
    assert all(p.grad is None for p in backbone.tower.parameters())
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize('name', ['vit', 'resnet'])
def test_an_unfrozen_tower_is_both(clip_files, name):
    backbone = build(clip_files, name, frozen=False)
    backbone.train()
    assert backbone.tower.training
    assert any('visual' in name for name in backbone.state_dict())
    assert 'tower_sum' not in backbone.state_dict()
    sum(level.sum() for level in backbone(images(2, 3, 64, 64))).backward()
    assert backbone.tower.visual.conv1.weight.grad is not None
    # DDP waits for all that learns: what no map depends on does not.
    assert all(
        (p.grad is not None) == p.requires_grad for p in backbone.parameters())


def run_rank(rank, folder, backbones):
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    found = {}
    for name, backbone in backbones.items():
        wrapped = DistributedDataParallel(backbone)
        for step in range(2):
            wrapped.zero_grad()
            levels = wrapped(images(1, 3, 64, 64) * (1 + rank + step))
            sum(level.square().mean() for level in levels).backward()
        found[name] = [
            p.grad for p in backbone.parameters() if p.requires_grad
        ]
    torch.save(found, f'{folder}/rank{rank}.pth')


def test_unfrozen_towers_train_on_two_ranks(clip_files, tmp_path):
    """A step waits for what the one before left without a gradient."""
    backbones = {
        name: build(clip_files, name, frozen=False).train()
        for name in ('vit', 'resnet', 'timm_siglip', 'timm_convnext')
    }
    mp.start_processes(
        run_rank, (str(tmp_path), backbones), 2, start_method='fork')
    first, second = (
        torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2))
    for name, grads in first.items():
        assert all(grad.isfinite().all() for grad in grads), name
        torch.testing.assert_close(second[name], grads)


def test_regions_are_read_without_gradient(clip_files):
    for name in ('vit', 'resnet'):
        backbone = build(clip_files, name, frozen=False)
        backbone.eval()
        batch = images(2, 3, 64, 64)
        rois = torch.tensor([[1, 0, 0, 40., 32.]]).repeat(300, 1)
        _, encoded = backbone.encode(batch)
        regions = backbone.region_features_of(encoded, rois)
        assert not regions.requires_grad
        torch.testing.assert_close(
            regions[299:], backbone.tower.region_features(batch, rois[:1]))


class Messages(logging.Handler):
    """What MMEngine's logger says, which it does not pass on."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def test_another_tower_than_in_training_is_reported(clip_files):
    backbone = build(clip_files)
    state = backbone.state_dict()
    same = build(clip_files)
    other = OpenCLIPViT(clip_files('vit')[0], norm_cfg=NORM)
    own = other.tower_sum.clone()
    messages = Messages()
    logger = MMLogger.get_current_instance()
    logger.addHandler(messages)
    try:
        same.load_state_dict(state)
        assert not messages.texts
        other.load_state_dict(state)
    finally:
        logger.removeHandler(messages)
    text, = messages.texts
    assert 'trained on another image tower' in text
    assert f'names is {own.item()}.' in text
    # What it saves next is of its own tower.
    assert torch.equal(other.tower_sum, own)


def test_wrong_taps(clip_files):
    with pytest.raises(ValueError, match='maps 0 to 2, got'):
        build(clip_files, taps=(0, 1, 2, 3))
    with pytest.raises(ValueError, match='expected four taps'):
        build(clip_files, taps=(0, 1))
    with pytest.raises(ValueError, match='expected four taps of a vision'):
        OpenCLIPViT(*clip_files('resnet'), taps=(0, 1, 2, 3), norm_cfg=NORM)


def test_built_by_name(clip_files):
    model, weights = clip_files('vit')
    cfg = dict(model=model, pretrained=weights, norm_cfg=NORM)
    backbone = MODELS.build(dict(type='mmdet_clim.OpenCLIPViT', **cfg))
    assert backbone.taps == (0, 0, 1, 2)
