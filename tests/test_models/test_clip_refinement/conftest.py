# Licensed under the Apache License, Version 2.0.
"""A CLIP of width 32 on the disk, a model on it, and batches for it."""
import json

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules

import mmdet_clim  # noqa: F401  (first: open_clip needs what it prepares)

TINY = dict(
    embed_dim=12,
    vision_cfg=dict(
        image_size=32, layers=2, width=32, patch_size=16, head_width=16),
    text_cfg=dict(
        context_length=10, vocab_size=49408, width=16, heads=2, layers=1))


@pytest.fixture(scope='session')
def small_clip(tmp_path_factory):
    """``model`` and ``pretrained`` of a small CLIP."""
    import open_clip
    folder = tmp_path_factory.mktemp('clip')
    config = folder / 'region-clip-tiny.json'
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    torch.save(
        open_clip.create_model(config.stem).state_dict(), folder / 'clip.pt')
    return dict(model=str(config), pretrained=str(folder / 'clip.pt'))


@pytest.fixture
def model_cfg(small_clip):
    """CLIM on it: mosaics of 2x2, the last of two blocks trained."""
    register_all_modules()
    return dict(
        type='mmdet_clim.CLIMOnCLIP',
        image_tower=dict(type='mmdet_clim.DenseImageTower', **small_clip),
        text_encoder=dict(type='mmdet_clim.OpenCLIPTextEncoder', **small_clip),
        unlocked_blocks=1,
        image_size=(64, 64),
        vocabulary=['cat', 'dog', 'cow'],
        objectives=dict(
            clim=dict(type='mmdet_clim.MosaicTextObjective', grids=((2,
                                                                     2), ))))


@pytest.fixture
def make_batch():
    """Captioned images of 64 x 48 pixels, by their numbers."""
    return captioned_batch


def captioned_batch(numbers, captions=None):
    inputs, samples = [], []
    for place, number in enumerate(numbers):
        generator = torch.Generator().manual_seed(number)
        inputs.append(
            torch.randint(
                0, 256, (3, 64, 48), generator=generator, dtype=torch.uint8))
        caption = f'a cat {number}' if captions is None else captions[place]
        samples.append(
            DetDataSample(
                metainfo=dict(
                    img_id=number,
                    img_shape=(64, 48),
                    ori_shape=(128, 96),
                    captions=[[caption]],
                    image_keys=[number],
                    branch='captions')))
    return dict(inputs=inputs, data_samples=samples)
