# Licensed under the Apache License, Version 2.0.
"""Bags against crops, with a real image encoder, one bag at a time."""
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_clim.models.crop_encoder import CropEncoder
from mmdet_clim.models.objectives import TilesAlone
from mmdet_clim.models.objectives.bag_of_regions.reading import relative_boxes
from mmdet_clim.registry import MODELS

MEAN, STD = [100., 110., 120.], [50., 55., 60.]
TWO = ([10., 10., 26., 30.], [44., 30., 56., 42.])


@pytest.fixture
def image_encoder(tiny_clip, tiny_clip_weights):
    return dict(
        model=tiny_clip,
        pretrained=str(tiny_clip_weights),
        data_preprocessor=dict(mean=MEAN, std=STD, bgr_to_rgb=True))


@pytest.fixture
def cfg(image_encoder):
    return dict(
        type='mmdet_clim.BagDistillationObjective',
        loss=dict(
            type='mmdet_clim.CLIMRegionLoss', kind='infonce',
            temperature=30.0),
        image_encoder=image_encoder,
        bags=dict(
            word_dim=16,
            num_words=2,
            num_orders=1,
            drop_prob=0.,
            max_regions=4),
        num_groups=1)


def picture(seed=0, height=48, width=64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator)


def packed(pixels, rgb=True):
    """Pixels (RGB, 0 to 255) as a network gets them."""
    order = [0, 1, 2] if rgb else [2, 1, 0]
    image = (pixels[order].float() - torch.tensor(MEAN).view(
        3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    sample = DetDataSample(metainfo=dict(image_keys=[7], mosaic_grid=(1, 1)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[0., 0., pixels.shape[2], pixels.shape[1]]]))
    return image, sample


def branch(*images, found=None, text_encoder=None):
    return TilesAlone([sample for _, sample in images], found, text_encoder,
                      torch.stack([image for image, _ in images]))


def sample_of(objective, context):
    return objective.sample(context.tiles, context.stages[0])


def proposals(*boxes):
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4),
        scores=torch.full((len(boxes), ), .9))


def embedding_of(name, weights, pixels):
    """What open_clip says of 32x32 pixels."""
    clip = open_clip.create_model(name).eval()
    clip.load_state_dict(torch.load(weights, weights_only=True))
    settings = clip.visual.preprocess_cfg
    mean, std = (
        torch.tensor(settings[k]).view(3, 1, 1) for k in ('mean', 'std'))
    with torch.no_grad():
        return F.normalize(
            clip.encode_image(((pixels.float() / 255 - mean) / std)[None]),
            dim=1)[0]


@pytest.mark.parametrize('rgb', [True, False])
def test_a_crop_is_what_open_clip_sees(image_encoder, tiny_clip,
                                       tiny_clip_weights, rgb):
    image_encoder['data_preprocessor']['bgr_to_rgb'] = rgb
    encoder = CropEncoder(**image_encoder, batch_size=1)
    pixels = picture()
    image, _ = packed(pixels, rgb)
    # One crop as it is, one of twice the size, which is averaged.
    rois = torch.tensor([[0., 8., 4., 40., 36.], [1., 0., 0., 64., 48.]])
    images = torch.stack([image, image])
    found = encoder(images, rois)
    shrunk = F.interpolate(pixels.float()[None], (32, 32), mode='area')[0]
    for row, of in zip(found, (pixels[:, 4:36, 8:40], shrunk)):
        expected = embedding_of(tiny_clip, tiny_clip_weights, of)
        # The average over a crop of 1.5 pixels is one of samples.
        torch.testing.assert_close(
            row,
            expected,
            atol=1e-5 if of.dtype == torch.int64 else .05,
            rtol=1e-4)
    assert encoder(images, rois[:0]).shape == (0, 12)
    # Of a batch whose memory has the channels last.
    last = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(last, rois), found)
    # The encoder stays in float32 around it.
    with torch.autocast('cpu', torch.bfloat16):
        mixed = encoder(images.bfloat16().float(), rois)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, encoder(images.bfloat16().float(), rois))
    assert not encoder.state_dict() and not list(encoder.parameters())


def plain_grid(box, step, width=64, height=48):
    """The 3x3 boxes, clamped to the image, and the share of each inside."""
    wide, high = box[2] - box[0], box[3] - box[1]
    boxes, shares = [], []
    for down in (-step, 0, step):
        for right in (-step, 0, step):
            inside = [
                min(max(box[0] + right * wide, 0), width),
                min(max(box[1] + down * high, 0), height),
                min(max(box[2] + right * wide, 0), width),
                min(max(box[3] + down * high, 0), height)
            ]
            boxes.append(inside)
            shares.append((inside[2] - inside[0]) * (inside[3] - inside[1]) /
                          wide / high)
    return torch.tensor(boxes), torch.tensor(shares)


def test_bags_are_neighbourhoods(cfg):
    # Chance 1 for every neighbour that is not cut off.
    everyone = MODELS.build(dict(cfg, base_prob=1., alpha=0., cut_off=.5))
    context = branch(packed(picture()), found=[proposals(*TWO)])
    sample = sample_of(everyone, context)
    # A bag each; around the first a whole grid but for what leaves the image.
    assert sample.bags.shape == (2, len(sample))
    assert sample.bags.sum(0).eq(1).all()
    for box, bag, frame in zip(TWO, *sorted_bags(sample)):
        own = sample.bboxes[bag]
        assert own[sample.is_core[bag]].tolist() == [list(box)]
        # Neighbours overlap by a tenth of their size.
        grid, shares = plain_grid(box, .9)
        wanted = grid[shares >= .5]
        assert len(wanted) == 8
        torch.testing.assert_close(own, wanted)
        torch.testing.assert_close(
            frame, torch.cat([wanted[:, :2].amin(0), wanted[:, 2:].amax(0)]))
    alone = MODELS.build(dict(cfg, base_prob=0.))
    sample = sample_of(alone, context)
    assert sorted(sample.bboxes.tolist()) == sorted(map(list, TWO))
    assert sample.members.all()


def test_the_chance_of_a_neighbour(cfg):
    objective = MODELS.build(dict(cfg, num_groups=3))
    objective.cut_off = .5
    assert (objective.base_prob, objective.alpha,
            objective.interval) == (.3, 3, -.1)
    objects = torch.tensor(TWO[:1]).repeat(4000, 1)
    tiles = torch.tensor([[0., 0., 64., 48.]]).repeat(4000, 1)
    torch.manual_seed(0)
    boxes, drawn = objective.neighbours(objects, tiles)
    grid, shares = plain_grid(TWO[0], .9)
    torch.testing.assert_close(boxes[7], grid)
    expected = torch.where(shares < .5, 0, .3 * shares**3)
    expected[4] = 1
    assert (expected == 0).sum() == 1 and len(expected.unique()) == 5
    torch.testing.assert_close(
        drawn.float().mean((0, 1)), expected, atol=.02, rtol=0)


def test_several_bags_of_an_object(cfg):
    objective = MODELS.build(dict(cfg, num_groups=3))
    context = branch(packed(picture()), found=[proposals(*TWO)])
    torch.manual_seed(0)
    counts = []
    for _ in range(30):
        sample = sample_of(objective, context)
        bags = [tuple(bag) for bag in sample.bags.tolist()]
        # No two are the same, each has its object, each region is read once.
        assert len(set(bags)) == len(bags)
        assert sample.bags[:, sample.is_core].sum(1).eq(1).all()
        rows = sample.bboxes.tolist()
        assert len({tuple(row) for row in rows}) == len(rows)
        assert sample.bags.any(0).all()
        per_object = sample.bags[:, sample.is_core].sum(0)
        counts += per_object.tolist()
    assert min(counts) >= 1 and max(counts) == 3


def sorted_bags(sample):
    order = sample.bboxes[sample.is_core][:, 0].argsort()
    return sample.bags[order], sample.bag_rois[order, 1:]


def test_value_and_gradients_equal_one_bag_at_a_time(cfg, tiny_clip_cfg,
                                                     monkeypatch):
    text_encoder = MODELS.build(tiny_clip_cfg)
    objective = MODELS.build(
        dict(
            cfg,
            base_prob=1.,
            queue=dict(type='mmdet_clim.FeatureQueue', size=9, dim=12)))
    torch.manual_seed(0)
    context = branch(
        packed(picture(0)),
        packed(picture(1)),
        found=[proposals(*TWO), proposals()],
        text_encoder=text_encoder)
    torch.manual_seed(3)
    sample = sample_of(objective, context)
    sample.is_core[:] = False
    assert not sample.image.any() and len(sample) > 4
    # Regions in their own order; of the nine, four have room.
    monkeypatch.setattr(
        torch, 'rand', lambda *size, **_: torch.arange(math.prod(size)).
        reshape(size) / math.prod(size))
    queued = torch.zeros(0, 12), torch.zeros(0, 12)
    for _ in range(2):
        embeddings = torch.randn(len(sample), 32, requires_grad=True)
        found = objective.compare(embeddings, sample, context, True)['loss']
        bags, crops = plain_bags(embeddings, sample, context, objective)
        past_bags, past_crops = queued
        logits = 30 * torch.cat([bags, past_bags]) @ torch.cat(
            [crops, past_crops]).T
        own = torch.arange(len(logits))
        expected = (F.cross_entropy(logits, own) +
                    F.cross_entropy(logits.T, own)) / 2
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        grads = [
            torch.autograd.grad(of, embeddings)[0] for of in (found, expected)
        ]
        assert grads[1].abs().max() > 1e-4
        torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)
        queued = (torch.cat([past_bags,
                             bags.detach()]), torch.cat([past_crops, crops]))
    assert objective.num_bags == 4
    assert objective.contrast.bag_queue.ids.tolist() == [0, 1, 2, 3]
    assert not [k for k in objective.state_dict() if 'image_encoder' in k]


def plain_bags(embeddings, sample, context, objective):
    """Each bag's words one after another, and its crop."""
    text_encoder = context.text_encoder
    bags, crops = [], []
    for bag, roi in zip(sample.bags, sample.bag_rois):
        words = []
        for region in bag.nonzero().flatten().tolist()[:4]:
            box = sample.bboxes[region][None]
            position = objective.reader.position(
                relative_boxes(box, roi[None, 1:]))[0]
            words.append(embeddings[region].view(2, 16) + position)
        words = torch.cat(words)
        bags.append(
            text_encoder.encode_words(words[None],
                                      torch.tensor([len(words)]))[0])
        crops.append(objective.image_encoder(context.images, roi[None])[0])
    return torch.stack(bags), torch.stack(crops)


def test_single_regions_meet_their_own_crops(cfg, tiny_clip_cfg):
    cfg['object_loss'] = dict(
        type='mmdet_clim.CLIMRegionLoss',
        kind='infonce',
        temperature=50.,
        loss_weight=.1)
    objective = MODELS.build(cfg)
    text_encoder = MODELS.build(tiny_clip_cfg)
    context = branch(
        packed(picture()), found=[proposals(*TWO)], text_encoder=text_encoder)
    sample = sample_of(objective, context)
    embeddings = torch.randn(len(sample), 32, requires_grad=True)
    out = objective.compare(embeddings, sample, context, True)
    assert sorted(out) == [
        'loss', 'object_loss', 'object_recall@1', 'recall@1'
    ]
    regions = torch.cat([
        text_encoder.encode_words(
            row.view(1, 2, 16), torch.tensor([2]), value_path=True)
        for row in embeddings
    ])
    crops = objective.image_encoder(context.images, sample.rois)
    own = torch.arange(len(sample))
    logits = 50 * regions @ crops.T
    expected = .05 * (
        F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own))
    torch.testing.assert_close(
        out['object_loss'], expected, atol=1e-5, rtol=1e-4)
    grads = [
        torch.autograd.grad(of, embeddings, retain_graph=True)[0]
        for of in (out['object_loss'], expected)
    ]
    assert grads[1].abs().max() > 1e-4
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_no_bags_at_all(cfg, tiny_clip_cfg):
    objective = MODELS.build(
        dict(cfg, queue=dict(type='mmdet_clim.FeatureQueue', size=9, dim=12)))
    context = branch(
        packed(picture()), text_encoder=MODELS.build(tiny_clip_cfg))
    embeddings = torch.zeros(0, 32, requires_grad=True)
    out = objective.compare(embeddings, sample_of(objective, context), context,
                            True)
    assert out['loss'].item() == 0
    out['loss'].backward()
    assert embeddings.grad.shape == (0, 32)
    assert len(objective.contrast.bag_queue) == 0


def test_encoders_of_two_clips(cfg, bert_folder):
    bert = MODELS.build(
        dict(type='mmdet_clim.SentenceTextEncoder', path=str(bert_folder)))
    objective = MODELS.build(cfg)
    context = branch(
        packed(picture()), found=[proposals(*TWO)], text_encoder=bert)
    sample = sample_of(objective, context)
    with pytest.raises(ValueError, match='expected the width 16.*got 12'):
        objective.compare(torch.zeros(len(sample), 32), sample, context, True)
    # A sentence encoder has no value path, which shows before training.
    objective.check('distillation', None, None, bert)
    objective = MODELS.build(dict(cfg, object_loss=cfg['loss']))
    with pytest.raises(ValueError, match='value_path'):
        objective.check('distillation', None, None, bert)


@pytest.mark.parametrize('changes, key', [
    (dict(num_groups=0), 'num_groups'),
    (dict(base_prob=2), 'base_prob'),
    (dict(alpha=-1), 'alpha'),
    (dict(cut_off=1.5), 'cut_off'),
    (dict(interval=-1), 'interval'),
])
def test_bad_arguments(cfg, changes, key):
    with pytest.raises(ValueError, match=key):
        MODELS.build({**cfg, **changes})


@pytest.mark.parametrize('changes, key', [
    (dict(data_preprocessor=dict(std=STD)), 'expected mean'),
    (dict(batch_size=0), 'batch_size'),
])
def test_bad_image_encoders(image_encoder, changes, key):
    with pytest.raises(ValueError, match=key):
        CropEncoder(**{**image_encoder, **changes})
