# Licensed under the Apache License, Version 2.0.
"""A refined CLIP as pictures look at it."""
import pytest
import torch

from mmdet_clim.registry import MODELS
from mmdet_clim.visualization import view_model


@torch.no_grad()
def test_a_clip_answers_as_its_tower_does(model_cfg):
    model = MODELS.build(model_cfg).eval()
    view = view_model(model)
    image = torch.randint(0, 256, (3, 64, 48), dtype=torch.uint8)
    seen = view.look(image)
    pixels = model.data_preprocessor(dict(inputs=[image]))['inputs']
    assert seen.size == pixels.shape[2:]
    texts = view.encode_texts(['cat', 'a dog on a mat'])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    maps, dense = view.responses(seen, texts), view.dense_features(seen)
    assert maps.shape == (2, *pixels.shape[2:]) and dense.shape[0] == 12
    # To enlarge a map by a whole number does not change its mean.
    torch.testing.assert_close(
        maps.mean((1, 2)),
        torch.einsum('dhw,td->thw', dense, texts).mean((1, 2)))
    boxes = torch.tensor([[0., 0, 48, 64], [8., 8, 24, 40]])
    rois = torch.cat([torch.zeros(2, 1), boxes], 1)
    torch.testing.assert_close(
        view.read(seen, boxes),
        model.image_tower.region_features(pixels, rois))
    with pytest.raises(TypeError, match='a CLIP proposes none'):
        view.propose(seen, (64, 48))
