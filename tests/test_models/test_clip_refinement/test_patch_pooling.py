# Licensed under the Apache License, Version 2.0.
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from mmdet_clim.models.clip_refinement.patch_pooling import text_weighted

E1, E2, E3 = torch.eye(3)


def dense_of(*rows):
    """Rows of patches' vectors to a map (1, 3, h, w)."""
    return torch.stack([torch.stack(row) for row in rows]).permute(2, 0,
                                                                   1)[None]


def test_patches_like_the_text_weigh_more():
    """Two images of two patches of 16 pixels; by hand."""
    dense = torch.cat([dense_of([E3, E3]), dense_of([E1, E2])])
    rois = torch.tensor([[1., 0, 0, 32, 16], [1, 0, 0, 32, 16],
                         [1, 16, 0, 32, 16]])
    texts = torch.stack([E1, E2, E1])
    found = text_weighted(dense, rois, 16, texts, sharpness=2.)
    more = math.exp(2)
    expected = F.normalize(
        torch.tensor([[more, 1, 0], [1, more, 0], [0, 1, 0]]), dim=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('sharpness', [1e-3, 4., 1e4])
def test_the_weights_are_a_softmax_without_gradient(sharpness):
    torch.manual_seed(0)
    raw = torch.randn(2, 8, 4, 6, requires_grad=True)
    dense = F.normalize(raw, dim=1)
    # Of image 1, rows 1 to 2 and columns 2 to 4; of image 0, all.
    rois = torch.tensor([[1., 16, 8, 40, 24], [0, 0, 0, 48, 32]])
    texts = F.normalize(torch.randn(2, 8), dim=1)
    found = text_weighted(dense, rois, 8, texts, sharpness)
    wanted = []
    for text, patches in zip(texts, (dense[1, :, 1:3, 2:5], dense[0])):
        patches = patches.flatten(1).t()
        weights = (sharpness * patches.detach() @ text).softmax(0)
        wanted.append(F.normalize(weights @ patches, dim=0))
    wanted = torch.stack(wanted)
    torch.testing.assert_close(found, wanted)
    target = torch.randn(2, 8)
    ours, = torch.autograd.grad((found * target).sum(), raw, retain_graph=True)
    plain, = torch.autograd.grad((wanted * target).sum(), raw)
    torch.testing.assert_close(ours, plain)


def test_text_weights_and_centres_on_a_clip(model_cfg, make_batch):
    cfg = copy.deepcopy(model_cfg)
    cfg['objectives']['clim']['text_sharpness'] = 5.
    model = MODELS.build(dict(cfg, region_ways=('roi', 'centre'))).train()
    batch = model.data_preprocessor(make_batch(range(6)), True)
    model(**batch, mode='loss')['clim.loss'].backward()
    block = model.image_tower.visual.transformer.resblocks[-1]
    assert all(p.grad.abs().sum() > 0 for p in block.mlp.parameters())
    sample = batch['data_samples'][0].clone()
    sample.set_metainfo(dict(branch='regions'))
    boxes = torch.tensor([[0., 0, 20, 40], [16, 16, 48, 64]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(2))
    images = batch['inputs'][:1]
    model.eval()
    with torch.no_grad():
        model(images, [sample], mode='predict')
        # Six tenths of 20 x 40 and of 32 x 48 pixels.
        rois = torch.tensor([[0., 4, 8, 16, 32], [0, 22.4, 25.6, 41.6, 54.4]])
        regions = model.image_tower.region_features(images[..., :48], rois)
    torch.testing.assert_close(sample.pred_regions.centre,
                               regions @ model.class_embeddings().t())
    assert set(sample.pred_regions.keys()) == {'roi', 'centre'}


@pytest.mark.parametrize('value', [0, -1., math.inf, math.nan])
def test_a_sharpness_that_weighs_nothing(value):
    with pytest.raises(ValueError, match='text_sharpness'):
        MODELS.build(
            dict(type='mmdet_clim.MosaicTextObjective', text_sharpness=value))


def test_a_sharpness_without_tiles():
    with pytest.raises(ValueError, match='text_sharpness .* without grids'):
        MODELS.build(
            dict(
                type='mmdet_clim.MosaicTextObjective',
                grids=(),
                text_sharpness=10.))
