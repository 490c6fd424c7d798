# Licensed under the Apache License, Version 2.0.
import pytest
from torch import nn

import mmdet_clim  # noqa: F401  (first: open_clip needs what it prepares)
from mmdet_clim.models.clip_refinement import tower_blocks, unlock_blocks


def trained(module):
    return {n for n, p in module.named_parameters() if p.requires_grad}


@pytest.fixture(scope='module')
def towers():
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    return dict(
        vit=VisionTransformer(32, 16, 16, 3, 1, 1., output_dim=8),
        resnet=ModifiedResNet([1, 1, 1, 1], 8, heads=4, image_size=64,
                              width=8),
        timm=TimmModel('test_convnext', 8, image_size=64),
        timm_vit=TimmModel('test_vit', 8, image_size=64))


@pytest.mark.parametrize(
    'tower, count, prefixes',
    [
        ('vit', 2, ('transformer.resblocks.1.', 'transformer.resblocks.2.')),
        # REFERENCE.md, section 4: of the pool, query, key and position.
        ('resnet', 1, ('layer4.', 'attnpool.q_proj.', 'attnpool.k_proj.',
                       'attnpool.positional_embedding')),
        ('resnet', 0, ()),
        ('timm', 1, ('trunk.stages.3.', )),
        ('timm_vit', 1, ('trunk.blocks.5.', )),
        ('vit', 0, ()),
    ])
def test_the_last_blocks_and_nothing_else(towers, tower, count, prefixes):
    visual = towers[tower]
    unlock_blocks(visual, count)
    assert trained(visual) == {
        n
        for n, _ in visual.named_parameters() if n.startswith(tuple(prefixes))
    } if prefixes else not trained(visual)


def test_all(towers):
    unlock_blocks(towers['vit'], 'all')
    assert trained(
        towers['vit']) == {n
                           for n, _ in towers['vit'].named_parameters()}


@pytest.mark.parametrize('count', [4, -1, 'some', 1.5])
def test_wrong_counts(towers, count):
    with pytest.raises(ValueError, match='expected 0 to 3'):
        unlock_blocks(towers['vit'], count)


def test_another_tower():
    with pytest.raises(TypeError, match='got Linear'):
        tower_blocks(nn.Linear(1, 1))
