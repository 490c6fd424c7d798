# Licensed under the Apache License, Version 2.0.
"""Tiny real open_clip models with image towers of every kind, as files."""
import json

import pytest
import torch

import mmdet_clim  # noqa: F401  (first: open_clip needs what it prepares)

TEXT = dict(context_length=10, vocab_size=49408, width=16, heads=2, layers=1)
VIT = dict(image_size=32, layers=3, width=32, patch_size=8, head_width=16)
VISION = dict(
    vit=VIT,
    vit_scaled=dict(VIT, ls_init_value=.3, patch_dropout=.5),
    vit_average=dict(VIT, pool_type='avg', final_ln_after_pool=True),
    vit_custom=dict(
        VIT, scale_heads=True, scale_attn_inner=True, scale_attn=True),
    coca=dict(VIT, attentional_pool=True, attn_pooler_heads=2),
    resnet=dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=32),
    timm_vit=dict(
        timm_model_name='test_vit', timm_pool='token', image_size=160),
    timm_siglip=dict(
        timm_model_name='test_vit3',
        timm_pool='map',
        timm_proj='none',
        image_size=160),
    timm_eva=dict(
        timm_model_name='eva02_tiny_patch14_224',
        timm_pool='token',
        timm_proj=None,
        image_size=224),
    timm_convnext=dict(
        timm_model_name='test_convnext', timm_pool='', image_size=160),
    timm_resnet=dict(
        timm_model_name='test_resnet', timm_pool='avg', image_size=160))
WIDTH = dict(timm_siglip=96)


@pytest.fixture(scope='session')
def clip_files(tmp_path_factory):
    """A function: name of a tower to (model configuration, checkpoint)."""
    import open_clip
    folder = tmp_path_factory.mktemp('towers')
    made = {}

    def make(name):
        if name not in made:
            file = folder / f'tower-{name}.json'
            file.write_text(
                json.dumps(
                    dict(
                        embed_dim=WIDTH.get(name, 12),
                        vision_cfg=VISION[name],
                        text_cfg=TEXT)))
            open_clip.add_model_config(file)
            torch.manual_seed(0)
            clip = open_clip.create_model(file.stem)
            randomise(clip.visual)
            torch.save(clip.state_dict(), folder / f'{name}.pt')
            made[name] = (str(file), str(folder / f'{name}.pt'))
        return made[name]

    return make


def randomise(visual):
    """Norms, biases and statistics that differ from 0 and 1."""
    for name, value in visual.named_parameters():
        if value.ndim == 1 and 'embedding' not in name:
            torch.nn.init.normal_(value, 1. if 'weight' in name else 0., .2)
    for name, value in visual.named_buffers():
        if name.endswith('running_var'):
            torch.nn.init.uniform_(value, .5, 2.)
