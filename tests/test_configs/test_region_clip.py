# Licensed under the Apache License, Version 2.0.
"""The recipes of CLIM on CLIP, a few iterations each on OpenMoji's data.

Of the configs' own: data, objectives, what is trained, schedule, metrics.
Smaller: images, batches and, for the three grids at 1024 pixels, grids; CLIP
is one of its name with a smaller tower. The constants are tested in
test_published_constants_region_clip.py.
"""
import json
import math
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as mask_api

import mmdet_clim  # noqa: F401

TEXT = dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1)
SIGLIP = 'ViT-B-16-SigLIP'
CLIPS = {
    'ViT-B-16-quickgelu':
    ('CLIP_VIT_B_16',
     dict(image_size=32, layers=12, width=32, patch_size=16, head_width=16)),
    'ViT-L-14-336-quickgelu':
    ('CLIP_VIT_L_14_336',
     dict(image_size=28, layers=24, width=32, patch_size=14, head_width=16)),
    'RN50x64-quickgelu':
    ('CLIP_RN50X64',
     dict(image_size=64, layers=[1, 1, 1, 1], width=8, head_width=32)),
    SIGLIP: ('SIGLIP_VIT_B_16',
             dict(
                 timm_model_name='test_vit3',
                 timm_pool='map',
                 timm_proj='none',
                 image_size=32)),
}
SIDE = 96
# Of squares: that of CLIP's own images, that of mosaics and of whole images.
SIDES = {224: 32, 336: 28, 448: 64, 1024: SIDE}
VIT_B = 'vit-b-16_coco-captions'
# Config, epochs, number of trained blocks, alpha, objective.
RECIPES = [
    (f'clim_{VIT_B}', 100, 6, .7, 'clim'),
    (f'clim_{VIT_B}_box-regions', 100, 6, .7, 'clim'),
    ('clim_vit-b-16_cc3m', 3, 6, .7, 'clim'),
    ('clim_vit-l-14-336_coco-captions', 100, 12, .7, 'clim'),
    ('clim_vit-l-14-336_cc3m', 3, 12, .7, 'clim'),
    ('clim_rn50x64_coco-captions', 100, 1, .5, 'clim'),
    ('clim_rn50x64_cc3m', 3, 1, .5, 'clim'),
    ('clim_vit-b-16-siglip_coco-captions', 100, 6, .7, 'clim'),
    (f'region-labels_{VIT_B}', 100, 6, .7, 'labels'),
    (f'self-distillation_{VIT_B}', 100, 6, .7, 'distillation'),
]
# CC3M beside the smallest CLIP alone: what reads it is the same.
TRAINED = [row for row in RECIPES if 'cc3m' not in row[0] or 'vit-b' in row[0]]


@pytest.fixture(scope='module')
def roots(openmoji_root, small_clips, tmp_path_factory):
    """COCO's files that OpenMoji-COCO lacks; small CLIPs of great names."""
    import open_clip  # after mmdet_clim, which prepares for it
    folder = tmp_path_factory.mktemp('region_clip')
    root = folder / 'coco'
    shutil.copytree(openmoji_root, root)
    make_panoptic(root)
    captions = json.loads(
        (root / 'annotations/captions_train2017_tags.json').read_text())
    shutil.copytree(root / 'train2017', root / 'val2017', dirs_exist_ok=True)
    (root / 'annotations/captions_val2017.json').write_text(
        json.dumps(
            dict(
                images=[{
                    k: image[k]
                    for k in ('id', 'file_name', 'height', 'width')
                } for image in captions['images'][:6]],
                annotations=[
                    dict(image_id=image['id'], caption=caption)
                    for image in captions['images'][:6]
                    for caption in image['captions']
                ])))
    (folder / 'nouns.txt').write_text('cat\ndog\nknife\n')
    (folder / 'proposals.json').write_text(
        json.dumps([
            dict(image_id=image['id'], bbox=[4, 4, 60, 50], score=.5)
            for image in captions['images'][::2]
        ]))
    small = {
        name:
        dict(embed_dim=24, quick_gelu=True, vision_cfg=vision, text_cfg=TEXT)
        for name, (_, vision) in CLIPS.items()
    }
    small[SIGLIP].update(
        embed_dim=96,
        quick_gelu=False,
        custom_text=True,
        init_logit_bias=-9.5,
        text_cfg=dict(
            TEXT,
            no_causal_mask=True,
            pool_type='last',
            hf_tokenizer_name=make_tokenizer(folder / 'tokenizer'),
            tokenizer_kwargs=dict(clean='canonicalize')))
    with pytest.MonkeyPatch.context() as patch, small_clips(
            folder / 'models', small):
        for name, (variable, _) in CLIPS.items():
            torch.manual_seed(0)
            file = folder / f'{variable}.pt'
            weights = open_clip.create_model(name).state_dict()
            if name == SIGLIP:
                # Like its published weights, above what InfoNCE may learn.
                weights['logit_scale'].fill_(math.log(117.25))
            torch.save(weights, file)
            patch.setenv(variable, str(file))
        patch.setenv('OV_COCO_ROOT', f'{root}/')
        patch.setenv('OV_LVIS_ROOT', f'{root}/')
        patch.setenv('CC3M_ROOT', f'{root}/')
        patch.setenv('CC3M_CAPTIONS',
                     'annotations/captions_captioned2017_tags.json')
        patch.setenv('CC3M_IMAGES', 'captioned2017/')
        patch.setenv('COCO_NOUNS', str(folder / 'nouns.txt'))
        patch.setenv('COCO_PROPOSALS', str(folder / 'proposals.json'))
        yield folder


def make_tokenizer(folder):
    """Bytes, without a start and padded with the end, as SigLIP's words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.train_from_iterator(
        [],
        trainers.BpeTrainer(
            special_tokens=['<unk>', '</s>'],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False))
    PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        unk_token='<unk>',
        eos_token='</s>',
        pad_token='</s>').save_pretrained(folder)
    return str(folder)


def make_panoptic(root):
    """Each object is a thing, what is left of an image is sky."""
    content = json.loads(
        (root / 'annotations/instances_val2017.json').read_text())
    folder = root / 'annotations/panoptic_val2017'
    folder.mkdir()
    annotations = []
    for image in content['images']:
        ids = np.ones((image['height'], image['width']), np.uint8)
        segments = [segment(1, 187, [0, 0, image['width'], image['height']])]
        objects = [
            a for a in content['annotations'] if a['image_id'] == image['id']
        ]
        for number, found in enumerate(objects, 2):
            ids[mask_api.decode(found['segmentation']) > 0] = number
            segments.append(
                segment(number, found['category_id'], found['bbox']))
        colours = np.zeros((*ids.shape, 3), np.uint8)
        colours[..., 2] = ids  # red, of an image in BGR
        name = image['file_name'].replace('.jpg', '.png')
        cv2.imwrite(str(folder / name), colours)
        annotations.append(
            dict(image_id=image['id'], file_name=name, segments_info=segments))
    things = [dict(c, isthing=1) for c in content['categories']]
    (root / 'annotations/panoptic_val2017.json').write_text(
        json.dumps(
            dict(
                images=content['images'],
                annotations=annotations,
                categories=[
                    *things,
                    dict(id=187, name='sky-other-merged', isthing=0)
                ])))


def segment(number, category, box):
    return dict(
        id=number,
        category_id=category,
        bbox=box,
        area=box[2] * box[3],
        iscrowd=0)


def shrink_images(node):
    if isinstance(node, dict):
        for key in ('scale', 'crop_size', 'size'):
            value = node.get(key)
            if isinstance(value, int):
                node[key] = SIDES[value]
            elif isinstance(value, tuple) and value[0] > 1:
                node[key] = tuple(SIDES.get(side, side) for side in value)
        if 'min_area' in node:
            node['min_area'] = 4
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            shrink_images(value)


def small_config(repository, name):
    cfg = Config.fromfile(repository / f'configs/region_clip/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        shrink_images(loader.dataset)
        loader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_dataloader.batch_size = 8
    cfg.model.image_size = tuple(SIDES[side] for side in cfg.model.image_size)
    if 'clim' in cfg.model.objectives:
        cfg.model.objectives.clim.update(
            grids=((2, 2), (1, 2)), mosaic_size=(SIDE, SIDE))
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


@pytest.mark.parametrize('name, epochs, blocks, alpha, objective', RECIPES)
def test_what_is_trained_for_how_long(roots, repository, name, epochs, blocks,
                                      alpha, objective):
    cfg = Config.fromfile(repository / f'configs/region_clip/{name}.py')
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler[1].end == epochs
    assert cfg.model.unlocked_blocks == blocks
    assert cfg.custom_hooks[-1].alpha == alpha
    assert list(cfg.model.objectives) == [objective]


@pytest.mark.parametrize(
    'name, epochs, blocks, alpha, objective',
    TRAINED,
    ids=[row[0] for row in TRAINED])
def test_an_epoch_of_three_iterations(roots, repository, tmp_path, train, name,
                                      epochs, blocks, alpha, objective):
    import open_clip
    runner, record = train(small_config(repository, name), tmp_path)
    assert len(record.losses) == 3
    assert all(0 < step[f'{objective}.loss'] < 999 for step in record.losses)
    measured = {
        key.split('/', 1)[1]: buffer.current()
        for key, buffer in runner.message_hub.log_scalars.items()
        if key.startswith('val/')
    }
    groups = ('base', 'novel') if 'box-regions' in name else ('things',
                                                              'stuff')
    for way in ('roi', 'mask', 'crop'):
        for group in ('all', *groups):
            assert 0 <= measured[f'region/{way}_{group}_top1'] <= 1
    assert 0 <= measured['retrieval/image_to_text_r1'] <= 1
    architecture = runner.cfg.clip.model
    saved = open_clip.create_model(
        architecture, pretrained=str(tmp_path / 'open_clip.pt')).state_dict()
    original = torch.load(roots / f'{CLIPS[architecture][0]}.pt')
    if architecture == SIGLIP:
        loss = runner.model.objectives['clim'].region_loss
        assert loss.kind == 'sigmoid'
        assert loss.temperature == pytest.approx(117.25, rel=1e-4)
        assert loss.bias.item() == pytest.approx(-9.5)
        assert loss.bias.requires_grad and loss.log_temperature.requires_grad
        assert saved['logit_bias'] == loss.bias
        assert saved['logit_scale'] == loss.log_temperature
    trained = runner.model.image_tower.visual.state_dict()
    moved = {
        key
        for key, value in trained.items()
        if not torch.equal(value, original[f'visual.{key}'])
    }
    assert moved
    for key, value in trained.items():
        if value.is_floating_point():
            torch.testing.assert_close(
                saved[f'visual.{key}'],
                alpha * value + (1 - alpha) * original[f'visual.{key}'])
    heads = {'.'.join(key.split('.')[:3]) for key in moved}
    if 'rn50x64' in name:
        pool = {key for key in moved if not key.startswith('layer4.')}
        assert pool >= {
            'attnpool.positional_embedding', 'attnpool.q_proj.weight',
            'attnpool.k_proj.weight'
        }
        assert not any('v_proj' in key or 'c_proj' in key for key in pool)
        assert all(key.startswith('attnpool.') for key in pool)
    else:
        assert len(heads) == blocks
