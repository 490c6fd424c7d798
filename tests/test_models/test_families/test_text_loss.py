# Licensed under the Apache License, Version 2.0.
"""Phrases of a tile and the queries inside it, by loops and all pairings."""
import itertools
import math
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

import mmdet_clim  # noqa: F401
from mmdet_clim.models.families import grounding_dino as module

sys.path.insert(0, str(Path(__file__).parents[2] / 'test_configs'))
from grounding_cases import shrink  # noqa: E402  isort: skip

CONFIG = (
    Path(mmdet.__file__).parent / '.mim/configs/mm_grounding_dino/coco/'
    'grounding_dino_swin-t_finetune_16xb4_1x_coco_48_17.py')
SIZE = (60, 80)  # height, width


@pytest.fixture
def head(small_bert):
    register_all_modules()
    cfg = shrink(Config.fromfile(CONFIG).model, small_bert).bbox_head
    cfg.update(num_pred_layer=3, share_pred_layer=False)
    return MODELS.build(cfg)


def focal(logit, positive):
    """Of one logit, as Lin et al. write it: the cost, and the loss."""
    p = 1 / (1 + math.exp(-logit))
    if positive:
        return -0.25 * (1 - p)**2 * math.log(p)
    return -0.75 * p**2 * math.log(1 - p)


def share_inside(box, region):
    x, y, w, h = (value * side
                  for value, side in zip(box, (*SIZE[::-1], *SIZE[::-1])))
    width = min(x + w / 2, region[2]) - max(x - w / 2, region[0])
    height = min(y + h / 2, region[3]) - max(y - h / 2, region[1])
    return max(width, 0) * max(height, 0) / (w * h)


def slow_loss(logits, boxes, regions, tokens):
    """One layer, one image: the matched queries and the loss."""
    inside = [[share_inside(box, region) for region in regions]
              for box in boxes]

    def cost(query, number):
        return 10 * (1 - inside[query][number]) + 2 * sum(
            focal(logit, token in tokens[number])
            for token, logit in enumerate(logits[query]))

    matched = min(
        itertools.permutations(range(len(logits)), len(regions)),
        key=lambda queries: sum(
            cost(query, number) for number, query in enumerate(queries)))
    total = 0
    for query, of_query in enumerate(logits):
        for token, logit in enumerate(of_query):
            if query in matched:
                positive = token in tokens[matched.index(query)]
            elif any(inside[query][number] > 0.5 and token in tokens[number]
                     for number in range(len(regions))):
                continue  # silent
            else:
                positive = False
            total += focal(logit, positive)
    return matched, total / len(regions)


def case(seed, boxes, regions, tokens, num_tokens=6, layers=1):
    """What a decoder gives, and the sample."""
    torch.manual_seed(seed)
    queries, width = len(boxes), 256
    hidden = torch.randn(layers, 1, queries, width, requires_grad=True)
    maps = torch.zeros(len(regions), 256)
    for row, of_region in zip(maps, tokens):
        row[list(of_region)] = 1
    mask = torch.ones(1, num_tokens, dtype=torch.bool)
    sample = DetDataSample(metainfo=dict(img_shape=SIZE))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(regions).view(-1, 4),
        labels=torch.arange(len(regions)),
        positive_maps=maps,
        text_token_mask=mask.expand(len(regions), -1))
    places = torch.tensor(boxes)[None]
    return sample, dict(
        hidden_states=hidden,
        references=[places] * (layers + 1),
        memory_text=torch.randn(1, num_tokens, width) * 3,
        text_token_mask=mask,
        enc_outputs_class=torch.zeros(1, queries, 256),
        enc_outputs_coord=places)


# cx, cy, w, h: two queries in the left tile, two in the right, one in both,
# one outside.
BOXES = [[.2, .3, .2, .2], [.25, .4, .4, .4], [.7, .4, .3, .3],
         [.8, .5, .1, .2], [.5, .5, .9, .9], [.5, .95, .1, .05]]
TILES = [[0., 0., 40., 50.], [40., 0., 80., 50.]]


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('regions, tokens', [
    (TILES, [(1, ), (3, 4)]),
    ([TILES[0], TILES[0], TILES[1]], [(0, ), (2, ), (2, )]),
    (TILES[:1], [(5, )]),
])
def test_against_all_pairings(head, regions, tokens, seed):
    sample, outputs = case(seed, BOXES, regions, tokens)
    # The encoder's logits are those of the decoder's only layer, in reverse.
    with torch.no_grad():
        scores, boxes = head(*[
            outputs[key] for key in ('hidden_states', 'references',
                                     'memory_text', 'text_token_mask')
        ])
    outputs['enc_outputs_class'] = scores[0].flip(1)
    found = module.text_loss(head, [sample], **outputs)
    expected = 0
    for logits, places in ((scores[0, 0], boxes[0, 0]),
                           (scores[0, 0].flip(0),
                            outputs['enc_outputs_coord'][0])):
        expected += slow_loss(logits[:, :6].tolist(), places.tolist(), regions,
                              tokens)[1]
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_who_is_silent_learns_nothing(head):
    sample, outputs = case(0, BOXES, TILES, [(1, ), (3, 4)])
    outputs['memory_text'].requires_grad_()
    scores, boxes = head(*[
        outputs[key] for key in ('hidden_states', 'references', 'memory_text',
                                 'text_token_mask')
    ])
    scores = scores[0].detach().requires_grad_()
    head.assigner = module.TASK_UTILS.build(module.TEXT_ASSIGNER)
    head.text_masks = outputs['text_token_mask']
    module._layer_loss(head, scores, boxes[0], [sample]).backward()
    matched, _ = slow_loss(scores[0, :, :6].tolist(), boxes[0, 0].tolist(),
                           TILES, [(1, ), (3, 4)])
    learns = scores.grad[0, :, :6] != 0
    assert set(matched) <= {0, 1, 2, 3} and learns[list(matched)].all()
    left, right = ({0, 1} - set(matched)), ({2, 3} - set(matched))
    for query in left:
        assert learns[query].tolist() == [1, 0, 1, 1, 1, 1]
    for query in right:
        assert learns[query].tolist() == [1, 1, 1, 0, 0, 1]
    # A box over both lies in neither.
    assert learns[4:].all()


def test_denoising_queries_and_the_own_assigner_are_left_alone(head):
    regions, tokens = TILES, [(1, ), (3, 4)]
    sample, outputs = case(1, BOXES, regions, tokens)
    alone = module.text_loss(head, [sample], **outputs)
    more = torch.randn(1, 1, 3, 256)
    outputs['hidden_states'] = torch.cat([more, outputs['hidden_states']], 2)
    outputs['references'] = [
        torch.cat([torch.rand(1, 3, 4), places], 1)
        for places in outputs['references']
    ]
    own = head.assigner
    together = module.text_loss(
        head, [sample],
        dn_meta=dict(num_denoising_queries=3, num_denoising_groups=1),
        **outputs)
    torch.testing.assert_close(together, alone)
    assert head.assigner is own


def test_without_a_region_all_is_background(head):
    sample, outputs = case(2, BOXES, [], [])
    found = module.text_loss(head, [sample], **outputs)
    scores, _ = head(*[
        outputs[key] for key in ('hidden_states', 'references', 'memory_text',
                                 'text_token_mask')
    ])
    expected = sum(
        focal(logit, False)
        for logit in scores[0, 0, :, :6].flatten().tolist())
    expected += len(BOXES) * 6 * focal(0., False)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_queries_are_matched_once(head, monkeypatch):
    """Whoever is silent can not be matched by a second look."""
    sample, outputs = case(0, BOXES, TILES, [(1, ), (3, 4)])
    asked = []
    get_targets = head.get_targets
    monkeypatch.setattr(head, 'get_targets',
                        lambda *args: asked.append(1) or get_targets(*args))
    # Ten queries say no louder than silence does, and the best is among them.
    outputs['memory_text'] = outputs['memory_text'] * 100
    module.text_loss(head, [sample], **outputs)
    assert len(asked) == 2  # the layer and the encoder


def test_the_share_outside_by_hand():
    cost = module.InsideCost(weight=10.0)(
        InstanceData(
            bboxes=torch.tensor([[0., 0., 10., 10.], [30., 0., 50., 10.]])),
        InstanceData(bboxes=torch.tensor(TILES)))
    torch.testing.assert_close(cost, torch.tensor([[0., 10.], [5., 5.]]))
