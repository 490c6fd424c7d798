# Licensed under the Apache License, Version 2.0.
import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch.nn import functional as F

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.models import connected_zero
from mmdet_clim.models.clip_refinement import OpenCLIPTextTower
from mmdet_clim.models.clip_refinement.objectives import crop_images
from mmdet_clim.models.clip_refinement.towers import (
    enlarged,
    letterbox,
)

TINY = dict(
    embed_dim=12,
    vision_cfg=dict(
        image_size=32, layers=1, width=32, patch_size=16, head_width=16),
    text_cfg=dict(
        context_length=10, vocab_size=49408, width=16, heads=2, layers=1))
LABELS = dict(
    type='mmdet_clim.RegionLabelObjective',
    boxes=dict(type='mmdet_clim.RandomBoxes', num_boxes=6),
    vocabulary=['cat', 'dog', 'cow'],
    templates=('a {}', ),
    loss=dict(type='mmdet_clim.FederatedClassLoss', num_sampled=2))
DISTILLATION = dict(
    type='mmdet_clim.SelfDistillationObjective',
    boxes=dict(type='mmdet_clim.GridBoxes', max_rows=2, max_cols=2))

CHANGED = 'transformer.resblocks.1.mlp.c_fc.weight'


def build(cfg, **changes):
    return MODELS.build(dict(copy.deepcopy(cfg), **changes))


def losses(model, batch):
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    return model(**data, mode='loss')


def test_clim_is_the_contrast_of_tiles_and_whole_images(model_cfg, make_batch):
    """Six images: one mosaic, two whole, written out plainly."""
    model = build(model_cfg).train()
    batch = make_batch(range(6))
    found = losses(model, batch)
    images = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    assert images.shape == (6, 3, 64, 64)
    tower = model.image_tower
    mosaic = torch.cat([
        torch.cat([images[0], images[1]], 2),
        torch.cat([images[2], images[3]], 2)
    ], 1)[None]
    mosaic = F.interpolate(mosaic, (64, 64), mode='bicubic', antialias=True)
    # Images of 64 x 48 in cells of 32 x 32.
    rois = torch.tensor([[0., 0, 0, 24, 32], [0, 32, 0, 56, 32],
                         [0, 0, 32, 24, 64], [0, 32, 32, 56, 64]])
    regions = torch.cat(
        [tower.region_features(mosaic, rois),
         tower.encode_image(images[4:])])
    texts = model.text_encoder([f'a cat {i}' for i in range(6)])
    logits = regions @ texts.t() / .07  # open_clip starts there
    own = torch.arange(6)
    expected = (F.cross_entropy(logits, own) +
                F.cross_entropy(logits.t(), own)) / 2
    torch.testing.assert_close(
        found['clim.loss'], expected, rtol=1e-4, atol=1e-4)
    assert found['clim.recall@1'].item() == pytest.approx(
        100 * (logits.argmax(1) == own).float().mean().item())


@pytest.mark.parametrize('size, runs', [(None, 1), ((96, 96), 2)])
def test_the_tower_runs_once_for_images_of_one_size(model_cfg, make_batch,
                                                    size, runs):
    model_cfg['objectives']['clim']['mosaic_size'] = size
    model = build(model_cfg).train()
    model.image_tower.visual.conv1.register_forward_hook(
        lambda module, args, output: seen.append(len(output)))
    seen = []
    found = losses(model, make_batch(range(6)))
    assert len(seen) == runs and sum(seen) == 3  # a mosaic of four, and two
    assert found['clim.loss'].isfinite()


def test_equal_captions_are_positives_of_each_other(model_cfg, make_batch):
    model = build(model_cfg).train()
    captions = ['a cat'] * 6
    found = losses(model, make_batch(range(6), captions))
    # All texts are one: the distribution that is asked for is uniform.
    assert found['clim.loss'].item() > 0
    assert found['clim.recall@1'] == 100


@pytest.mark.parametrize('scale, start', [(4.77, 100), (3., 20.0855)])
def test_the_scale_starts_where_that_of_clip_is(model_cfg, tmp_path, scale,
                                                start):
    """SigLIP's are above the limit of what is learned."""
    weights = torch.load(model_cfg['text_encoder']['pretrained'])
    weights['logit_scale'].fill_(scale)
    torch.save(weights, tmp_path / 'clip.pt')
    text = dict(
        model_cfg['text_encoder'], pretrained=str(tmp_path / 'clip.pt'))
    model = build(model_cfg, text_encoder=text)
    loss = model.objectives['clim'].region_loss
    assert loss.temperature == pytest.approx(start, rel=1e-4)


@pytest.mark.parametrize('bias', [-9.5, None])
def test_siglips_loss_goes_on_from_its_scale_and_bias(model_cfg, make_batch,
                                                      small_clip, tmp_path,
                                                      bias):
    """Written out for three whole images; its scale has no limit."""
    import open_clip
    clip = json.loads(Path(small_clip['model']).read_text())
    # open_clip has a tokenizer of its own for names with "siglip".
    file = tmp_path / f'tiny-pairs{bias}.json'
    file.write_text(json.dumps(dict(clip, init_logit_bias=bias)))
    open_clip.add_model_config(file)
    weights = open_clip.create_model(file.stem).state_dict()
    weights['logit_scale'].fill_(math.log(117.25))
    torch.save(weights, tmp_path / 'clip.pt')
    names = dict(model=str(file), pretrained=str(tmp_path / 'clip.pt'))
    loss = dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='sigmoid',
        learn_temperature=True,
        gather=True)
    model = build(
        model_cfg,
        image_tower=dict(model_cfg['image_tower'], **names),
        text_encoder=dict(model_cfg['text_encoder'], **names),
        objectives=dict(
            clim=dict(
                type='mmdet_clim.MosaicTextObjective', grids=(
                ), loss=loss))).train()
    batch = make_batch(range(3))
    found = losses(model, batch)['clim.loss']
    images = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    cosines = model.image_tower.encode_image(images) @ model.text_encoder(
        [f'a cat {i}' for i in range(3)]).t()
    logits = 117.25 * cosines + (bias or 0)
    expected = F.binary_cross_entropy_with_logits(
        logits, torch.eye(3), reduction='sum') / 3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    found.backward()
    scale = model.objectives['clim'].region_loss.log_temperature
    with torch.no_grad():
        scale += .25
        for parameter in model.objectives.parameters():
            assert parameter.grad.abs() > 0
    saved = model.open_clip_state_dict()
    assert saved.keys() == weights.keys()
    assert saved['logit_scale'] == scale
    if bias is not None:
        assert saved['logit_bias'] == bias


def test_only_the_last_block_and_the_scale_learn(model_cfg, make_batch):
    model = build(model_cfg).train()
    loss, _ = model.parse_losses(losses(model, make_batch(range(6))))
    loss.backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    block = 'image_tower.visual.transformer.resblocks.1.'
    assert all(
        n.startswith(block) or n.endswith('log_temperature') for n in trained)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None
                and bool(parameter.grad.abs().sum() > 0)) == (
                    name in trained)


def test_what_no_objective_reads_has_a_gradient_on_several_ranks(
        model_cfg, make_batch, monkeypatch):
    """Of zeros, for which DDP waits; alone, weight decay is to leave it."""
    model = build(model_cfg, unlocked_blocks='all').train()
    model.image_tower.pool = torch.nn.Linear(2, 2)
    batch = make_batch(range(6))
    loss, _ = model.parse_losses(losses(model, batch))
    loss.backward()
    assert model.image_tower.pool.weight.grad is None
    monkeypatch.setattr(connected_zero, 'get_world_size', lambda: 2)
    on_ranks, _ = model.parse_losses(losses(model, batch))
    on_ranks.backward()
    torch.testing.assert_close(on_ranks, loss)
    assert not model.image_tower.pool.weight.grad.any()
    assert all(p.grad is not None for p in model.parameters()
               if p.requires_grad)


@pytest.mark.parametrize('objective', [LABELS, DISTILLATION])
def test_other_objectives_learn(model_cfg, make_batch, objective):
    torch.manual_seed(0)
    model = build(model_cfg, objectives=dict(other=objective)).train()
    batch = make_batch(range(3))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=3e-3)
    curve = []
    for _ in range(8):
        torch.manual_seed(1)  # the same boxes
        loss, _ = model.parse_losses(losses(model, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve[-1] < .9 * curve[0]
    # The original has not moved.
    original = build(model_cfg).image_tower.state_dict()
    for name, value in model.towers.original.state_dict().items():
        assert torch.equal(value, original[name])


def test_labels_are_compared_in_float32(model_cfg, make_batch):
    """Also where the towers compute in bfloat16."""
    model = build(model_cfg, objectives=dict(labels=LABELS)).train()
    seen = []
    model.objectives['labels'].class_loss.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]))
    with torch.autocast('cpu', torch.bfloat16):
        found = losses(model, make_batch(range(2)))
    assert seen[0].dtype == found['labels.loss'].dtype == torch.float32
    assert not torch.equal(seen[0], seen[0].bfloat16().float())


def test_scale_and_bias_of_a_text_tower_do_not_learn(tmp_path):
    """They are the loss's own; SigLIP has both."""
    file = tmp_path / 'tiny-with-bias.json'
    file.write_text(json.dumps(dict(TINY, init_logit_bias=-10)))
    tower = OpenCLIPTextTower(str(file))
    still = {n for n, p in tower.named_parameters() if not p.requires_grad}
    assert still == {'tower.logit_scale', 'tower.logit_bias'}
    tower(['a cat', 'a dog']).sum().backward()
    assert all(p.grad is not None for p in tower.parameters()
               if p.requires_grad)


def test_pseudo_labels_are_those_of_the_original_clip(model_cfg, make_batch):
    model = build(model_cfg, objectives=dict(labels=LABELS))
    images = model.data_preprocessor(make_batch([0]), True)['inputs']
    objective = model.objectives['labels']
    whole = torch.tensor([[0., 0, 0, 64, 64]])
    label, confidence = objective._name(images, whole, model.towers)
    # The crop of the whole image is the image at half its size.
    crop = F.avg_pool2d(images, 2)
    cosines = model.image_tower.encode_image(crop) @ model.text_encoder(
        ['a cat', 'a dog', 'a cow']).t()
    chances = (cosines / .07).softmax(1)
    assert label.tolist() == chances.argmax(1).tolist()
    torch.testing.assert_close(
        confidence, chances.amax(1), rtol=1e-3, atol=1e-3)


def test_nouns_are_scored_at_the_scale_of_clip(model_cfg, make_batch):
    """No bias, and 1 / 0.07, where open_clip starts; others as given."""
    objective = build(
        model_cfg, objectives=dict(labels=LABELS)).objectives['labels']
    assert objective.temperature == pytest.approx(1 / .07, rel=1e-4)
    assert objective.logit_bias is None
    cfg = dict(LABELS, temperature=25., bias=-10.)
    objective = build(
        model_cfg, objectives=dict(labels=cfg)).objectives['labels']
    assert objective.temperature == 25
    assert objective.logit_bias.item() == -10 and \
        objective.logit_bias.requires_grad


def test_mosaics_larger_than_the_images(model_cfg, make_batch):
    """Whole images are encoded at their own size, tiles within 96 x 96."""
    model = build(model_cfg)
    cfg = dict(
        type='mmdet_clim.MosaicTextObjective',
        grids=((2, 2), ),
        mosaic_size=(96, 96))
    model = build(model_cfg, objectives=dict(clim=cfg)).train()
    sizes = []
    model.image_tower.visual.conv1.register_forward_hook(
        lambda module, args, output: sizes.append(args[0].shape))
    losses(model, make_batch(range(6)))['clim.loss'].backward()
    assert sizes == [(1, 3, 96, 96), (2, 3, 64, 64)]


def test_no_box_is_sure_enough(model_cfg, make_batch):
    cfg = dict(LABELS, min_confidence=.999)
    model = build(model_cfg, objectives=dict(labels=cfg)).train()
    found = losses(model, make_batch(range(2)))
    assert found['labels.loss'] == 0 and found['labels.sure'] == 0
    found['labels.loss'].backward()


def region_sample(boxes, labels, masks=None):
    sample = DetDataSample(metainfo=dict(img_id=1, img_shape=(64, 48)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).reshape(-1, 4).float(),
        labels=torch.tensor(labels).long())
    if masks is not None:
        sample.gt_instances.masks = BitmapMasks(masks, 64, 48)
    return sample


def test_regions_are_read_in_three_ways(model_cfg):
    model = build(model_cfg, templates=('a {}', )).eval()
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    masks = np.zeros((1, 64, 48), np.uint8)
    masks[0, 16:32, 0:32] = 1  # two whole positions of the map
    sample = region_sample([[0, 16, 32, 32]], [1], masks)
    with torch.no_grad():
        found = model(image, [sample], mode='predict')[0].pred_regions
        classes = model.text_encoder(['a cat', 'a dog', 'a cow'])
        # Without the columns that only fill up the batch.
        image = image[..., :48]
        dense = model.image_tower.dense_features(image)
        assert dense.shape == (1, 12, 4, 3)
        mean = F.normalize(dense[0, :, 1, :2].mean(1), dim=0)
        torch.testing.assert_close(found.mask[0], classes @ mean)
        rois = torch.tensor([[0., 0, 16, 32, 32]])
        torch.testing.assert_close(
            found.roi,
            model.image_tower.region_features(image, rois) @ classes.t())
        # Enlarged: x -8..40 -> 0..40, y 12..36. In a square: y 4..44, of whose
        # 32 rows the first and the last 6.4 are no part of the box.
        assert enlarged(rois[:, 1:], torch.tensor([1.5]),
                        (64, 48)).tolist() == [[0, 12, 40, 36]]
        crop = crop_images(image, torch.tensor([[0., 0, 4, 40, 44]]), 32)
        crop[:, :, :6] = crop[:, :, 26:] = 0
        crop = model.image_tower.encode_image(crop) @ classes.t()
        torch.testing.assert_close(found.crop, crop)


def test_a_letterbox_keeps_the_ratio():
    """Boxes of twice the square's size, of a wide, a tall and a square one."""
    image = torch.rand(1, 3, 20, 24)
    boxes = torch.tensor([[4., 6, 20, 14], [0, 2, 4, 18], [8, 4, 24, 20]])
    found = letterbox(image, boxes, 8)
    half = F.avg_pool2d(image, 2)
    expected = torch.zeros(3, 3, 8, 8)
    expected[0, :, 2:6] = half[0, :, 3:7, 2:10]
    expected[1, :, :, 3:5] = half[0, :, 1:9, :2]
    expected[2] = half[0, :, 2:10, 4:12]
    torch.testing.assert_close(found, expected)
    assert letterbox(image, boxes[:0], 8).shape == (0, 3, 8, 8)


def test_crops_of_things_alone_are_enlarged(model_cfg):
    """Of two equal boxes, the one of stuff is cut as it is."""
    model = build(model_cfg, num_things=2, templates=('a {}', )).eval()
    image = torch.randn(1, 3, 64, 48)
    sample = region_sample([[8, 16, 40, 32]] * 2, [1, 2])
    with torch.no_grad():
        found = model(image, [sample], mode='predict')[0].pred_regions.crop
        classes = model.text_encoder(['a cat', 'a dog', 'a cow'])
        boxes = torch.tensor([[0., 12, 48, 36], [8, 16, 40, 32]])
        seen = model.image_tower.encode_image(letterbox(image, boxes, 32))
    torch.testing.assert_close(found, seen @ classes.t())


@pytest.mark.parametrize('mode', ['value', 'attention', 'masked_pool'])
def test_a_batch_is_what_its_images_are(model_cfg, make_batch, mode):
    """Images of other sizes, padded; regions and captions."""
    tower = dict(model_cfg['image_tower'], mode=mode)
    model = build(model_cfg, image_tower=tower).eval()
    images = torch.randn(3, 3, 64, 64)
    samples = [region_sample([[0, 0, 20, 20], [3, 9, 47, 60]], [0, 1])]
    for shape, boxes in (((40, 64), [[5, 5, 60, 39]]), ((64, 30), [])):
        samples.append(region_sample(boxes, [2] * len(boxes)))
        samples[-1].set_metainfo(dict(img_shape=shape))
    samples[2].set_metainfo(dict(branch='captions', captions=[['a cat']]))
    with torch.no_grad():
        alone = [
            model(
                image[None, :, :sample.img_shape[0], :sample.img_shape[1]],
                [copy.deepcopy(sample)],
                mode='predict')[0] for image, sample in zip(images, samples)
        ]
        together = model(images, samples, mode='predict')
    for way in ('roi', 'crop'):
        for number in range(2):
            torch.testing.assert_close(together[number].pred_regions[way],
                                       alone[number].pred_regions[way])
    torch.testing.assert_close(together[2].pred_pair.image,
                               alone[2].pred_pair.image)


@pytest.mark.parametrize('size', [16, 8, 4])
def test_crops_are_averages_or_interpolated(size):
    """8 x 8 pixels of an image whose memory is not in order."""
    images = torch.rand(2, 12, 10, 3).permute(0, 3, 1, 2)
    rois = torch.tensor([[0., 1, 2, 9, 10], [1, 0, 0, 8, 8]])
    found = crop_images(images, rois, size)
    parts = torch.stack([images[0, :, 2:10, 1:9], images[1, :, :8, :8]])
    if size > 8:
        expected = F.interpolate(parts, (size, size), mode='bilinear')
        # At its border RoIAlign looks beyond the box.
        found, expected = found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1]
    else:
        expected = F.adaptive_avg_pool2d(parts, size)
    torch.testing.assert_close(found, expected)


def test_samples_without_masks_regions_and_with_captions(
        model_cfg, make_batch):
    model = build(model_cfg).eval()
    captioned = make_batch([3], ['two dogs'])['data_samples'][0]
    samples = [
        region_sample([[0, 0, 20, 20]], [0]),
        region_sample([], []), captioned
    ]
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        model(images, samples, mode='predict')
        assert set(samples[0].pred_regions.keys()) == {'roi', 'crop'}
        assert not samples[1].pred_regions.keys()
        torch.testing.assert_close(
            samples[2].pred_pair.image,
            model.image_tower.encode_image(images[2:, :, :, :48]))
        assert samples[2].pred_pair.texts.shape == (1, 1, 12)


def test_an_open_clip_file_loads_and_comes_back(model_cfg, tmp_path):
    import open_clip
    torch.manual_seed(5)
    other = open_clip.create_model('region-clip-tiny')
    model = build(model_cfg)
    before = copy.deepcopy(model.image_tower.state_dict())
    keys = model.load_state_dict(other.state_dict(), strict=False)
    assert not keys.unexpected_keys
    assert keys.missing_keys == ['objectives.clim.region_loss.log_temperature']
    half = model.open_clip_state_dict(.25)
    torch.testing.assert_close(
        half[f'visual.{CHANGED}'],
        .25 * other.state_dict()[f'visual.{CHANGED}'] +
        .75 * before[f'visual.{CHANGED}'])
    torch.save(half, tmp_path / 'clip.pt')
    again = open_clip.create_model(
        'region-clip-tiny', pretrained=str(tmp_path / 'clip.pt'))
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, half[name])


def test_training_goes_on_from_a_refinement_of_the_same_clip(
        model_cfg, make_batch):
    """Also where it was saved in half precision, and for open_clip."""
    refined = build(model_cfg)
    with torch.no_grad():
        for parameter in refined.parameters():
            if parameter.requires_grad:
                parameter += .1
    for weights in (refined.state_dict(), refined.open_clip_state_dict(.5), {
            name: value.half() if value.is_floating_point() else value
            for name, value in refined.open_clip_state_dict().items()
    }):
        model = build(model_cfg).train()
        model.load_state_dict(weights, strict=False)
        losses(model, make_batch(range(4)))
        # The original is still the CLIP that both come from.
        original = build(model_cfg).image_tower.visual.state_dict()
        assert torch.equal(
            model.averaged_tower(0.)[CHANGED], original[CHANGED])


def test_no_training_from_another_clip_than_the_original(
        model_cfg, make_batch):
    """Its average with the original would be one of strangers."""
    import open_clip
    torch.manual_seed(5)
    other = open_clip.create_model('region-clip-tiny')
    model = build(model_cfg).train()
    model.load_state_dict(other.state_dict(), strict=False)
    with pytest.raises(
            ValueError, match="load_from.*'image_tower.visual.*pretrained"):
        losses(model, make_batch(range(4)))
    # It can be measured all the same.
    sample = region_sample([[0, 0, 20, 20]], [0])
    model.eval()(torch.randn(1, 3, 64, 64), [sample], mode='predict')


def test_a_clip_from_scratch_trains_both_towers(model_cfg, make_batch,
                                                small_clip):
    model = build(
        model_cfg,
        text_encoder=dict(
            type='mmdet_clim.OpenCLIPTextTower', model=small_clip['model']),
        unlocked_blocks='all',
        objectives=dict(
            clip=dict(type='mmdet_clim.MosaicTextObjective', grids=(
            )))).train()
    loss, _ = model.parse_losses(losses(model, make_batch(range(3))))
    loss.backward()
    without = {
        n
        for n, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    }
    assert not without
    weights = model.open_clip_state_dict()
    assert weights['logit_scale'] == model.objectives[
        'clip'].region_loss.log_temperature
    # Its own checkpoint loads both towers.
    again = build(
        model_cfg,
        text_encoder=dict(
            type='mmdet_clim.OpenCLIPTextTower', model=small_clip['model']))
    again.load_state_dict(weights, strict=False)
    texts = ['a cat', 'two dogs']
    torch.testing.assert_close(
        again.text_encoder(texts), model.text_encoder(texts))


def test_classes_at_test_time_are_those_of_the_vocabulary(model_cfg):
    """By their raw names where the prompt asks for them, by any phrase."""
    words = Vocabulary(('bat (animal)', 'cat'), ('cat', ),
                       raw_names=('bat_(animal)', 'cat'))
    model = build(model_cfg, vocabulary=words, templates=('a {raw}', )).eval()
    torch.testing.assert_close(model.class_embeddings(),
                               model.text_encoder(['a bat_(animal)', 'a cat']))

    model = build(
        model_cfg,
        vocabulary=['cat | dog', 'cow'],
        templates=('{}', ),
        region_ways=('roi', )).eval()
    image = torch.rand(1, 3, 64, 64)
    sample = region_sample([[0, 0, 40, 40], [16, 16, 48, 64]], [0, 1])
    boxes = sample.gt_instances.bboxes
    with torch.no_grad():
        found = model(image, [sample], mode='predict')[0].pred_regions.roi
        regions = model.image_tower.region_features(
            image[..., :48], torch.cat([torch.zeros(2, 1), boxes], 1))
    cosines = regions @ model.text_encoder(['cat', 'dog', 'cow']).t()
    expected = torch.stack([cosines[:, :2].amax(1), cosines[:, 2]], 1)
    torch.testing.assert_close(found, expected)


def test_arguments_that_are_refused(model_cfg, make_batch):
    with pytest.raises(ValueError, match='objectives: expected at least one'):
        build(model_cfg, objectives={})
    with pytest.raises(ValueError, match='expected a name without "loss"'):
        build(model_cfg, objectives={'my_loss': DISTILLATION})
    with pytest.raises(ValueError, match="region_ways.*'box'"):
        build(model_cfg, region_ways=('box', ))
    with pytest.raises(ValueError, match='min_confidence'):
        build(
            model_cfg, objectives=dict(labels=dict(LABELS, min_confidence=1.)))
    with pytest.raises(
            ValueError, match='text_encoder.*trained OpenCLIPTextTower'):
        build(
            model_cfg,
            text_encoder=dict(
                model_cfg['text_encoder'],
                type='mmdet_clim.OpenCLIPTextTower'),
            objectives=dict(labels=LABELS))
    with pytest.raises(ValueError, match='2 images are missing'):
        losses(build(model_cfg), make_batch(range(2)))
    with pytest.raises(ValueError, match='vocabulary.*got None'):
        build(model_cfg, vocabulary=None).class_embeddings()
