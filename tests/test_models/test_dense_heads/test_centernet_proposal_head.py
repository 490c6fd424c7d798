# Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from mmdet.models.dense_heads import CenterNetUpdateHead
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

CFG = dict(
    type='mmdet_clim.CenterNetProposalHead',
    num_classes=1,
    in_channels=4,
    feat_channels=4,
    stacked_convs=1,
    strides=[8, 16, 32, 64, 128],
    norm_cfg=None,
    test_cfg=dict(
        nms_pre=100,
        max_per_img=10,
        nms=dict(type='nms', iou_threshold=.9),
        min_bbox_size=0))
META = dict(img_shape=(128, 128))


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MODELS.build(ConfigDict(CFG))


def feats(images=1):
    return [torch.randn(images, 4, 128 // s, 128 // s) for s in CFG['strides']]


def boxes(*rows):
    return InstanceData(
        bboxes=torch.tensor(rows).float().reshape(-1, 4),
        labels=torch.zeros(len(rows), dtype=torch.long))


def test_proposals_are_the_same_in_training_and_testing(head):
    x = feats(2)
    both = []
    for mode in (True, False):
        head.train(mode)
        both.append(
            head.predict_by_feat(*head(x), batch_img_metas=[META, META]))
    for training, testing in zip(*both):
        assert len(training) == 10
        assert torch.equal(training.bboxes, testing.bboxes)
        assert torch.equal(training.scores, testing.scores)


@pytest.mark.parametrize('changes', [
    {},
    dict(score_thr=.5),
    dict(score_thr=.999),
    dict(min_bbox_size=25),
    dict(nms_pre=3, max_per_img=4),
    dict(nms_pre=-1, max_per_img=400),
    dict(nms=dict(type='nms', iou_threshold=.5, split_thr=1000)),
])
def test_a_batch_of_images_is_what_mmdet_makes_of_each(head, changes):
    """Of two sizes, some without a proposal."""
    cfg = ConfigDict(dict(head.test_cfg, **changes))
    metas = [META, dict(img_shape=(96, 64)), META]
    scores, sides = head(feats(3))
    scores = [of_level * 3 for of_level in scores]
    scores[0][1] -= 20
    found = head.predict_by_feat(scores, sides, batch_img_metas=metas, cfg=cfg)
    in_pixels = [of * stride for of, stride in zip(sides, CFG['strides'])]
    expected = CenterNetUpdateHead.predict_by_feat(
        head, scores, in_pixels, batch_img_metas=metas, cfg=cfg)
    assert sum(map(len, expected)) > 0 or 'score_thr' in changes
    for mine, other in zip(found, expected):
        torch.testing.assert_close(mine.bboxes, other.bboxes)
        torch.testing.assert_close(mine.scores, other.scores)
        assert torch.equal(mine.labels, other.labels)


def test_a_proposal_by_hand(head):
    """A peak at row 2, column 3 of P3: centre (28, 20) in pixels."""
    scores = [torch.full((1, 1, *f.shape[2:]), -9.) for f in feats()]
    sides = [torch.zeros(1, 4, *f.shape[2:]) for f in feats()]
    scores[0][0, 0, 2, 3] = 0.
    sides[0][0, :, 2, 3] = torch.tensor([1., .5, 2., 3.])
    (found, ) = head.predict_by_feat(scores, sides, batch_img_metas=[META])
    assert found.bboxes.tolist() == [[20, 16, 44, 44]]
    assert found.scores.tolist() == [.5]


def test_loss_and_predict_of_a_batch_with_an_empty_image(head):
    head.train()
    outs = head(feats(2))
    losses = head.loss_by_feat(
        *outs, [boxes([16, 16, 80, 80]), boxes()], [META, META])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all()
               for p in head.parameters())
    # The empty image alone: only its background, (1 - 0)^4 times the focal
    # term p^2 * -log(1 - p), weight 0.75, and nothing to divide by.
    outs = [[level[1:] for level in maps] for maps in outs]
    alone = head.loss_by_feat(*outs, [boxes()], [META])
    p = torch.cat([level.flatten() for level in outs[0]]).sigmoid()
    torch.testing.assert_close(alone['loss_cls'],
                               .75 * (p**2 * -(1 - p).log()).sum())
    assert alone['loss_bbox'] == 0


def test_targets_are_those_of_mmdet_where_there_are_boxes(head):
    plain = MODELS.build(
        dict(copy.deepcopy(CFG), type='mmdet.CenterNetUpdateHead'))
    points = head.prior_generator.grid_priors([f.shape[2:] for f in feats()],
                                              device='cpu')
    batch = [boxes([16, 16, 80, 80], [0, 0, 20, 30])]
    for mine, other in zip(
            head.get_targets(points, batch), plain.get_targets(points, batch)):
        assert torch.equal(mine, other)
    heat, _ = head.get_targets(points, [boxes()])
    assert heat.shape == (len(torch.cat(points)), 1) and (heat == 0).all()


def test_one_tower(head):
    names = {name.split('.')[0] for name, _ in head.named_parameters()}
    assert names == {'reg_convs', 'conv_cls', 'conv_reg', 'scales'}


@pytest.mark.parametrize('with_nms', [True, False])
def test_a_score_may_be_the_root_of_the_likelihood(head, with_nms):
    """The same boxes in the same order, limits on the likelihood."""
    outs = head(feats(2))
    cfg = ConfigDict(dict(head.test_cfg, score_thr=.3))
    arguments = dict(batch_img_metas=[META, META], cfg=cfg, with_nms=with_nms)
    plain = head.predict_by_feat(*outs, **arguments)
    head.root_score = True
    for of_image, other in zip(
            head.predict_by_feat(*outs, **arguments), plain):
        assert torch.equal(of_image.bboxes, other.bboxes)
        torch.testing.assert_close(of_image.scores, other.scores**.5)
        assert len(of_image) and of_image.scores.min() > .3**.5 - 1e-4


def test_positives_are_centres_alone():
    """One cell of each box in each level that regresses its size."""
    head = MODELS.build(ConfigDict(dict(CFG, extra_positives=False)))
    maps = [f.shape[2:] for f in feats()]
    points = head.prior_generator.grid_priors(maps, device='cpu')
    batch = [
        boxes([16, 16, 80, 80], [100, 4, 120, 30]),
        boxes(),
        boxes([0, 0, 128, 128]),
    ]
    # Points level by level, in each image by image.
    points = torch.cat([level.repeat(3, 1) for level in points])
    rows, labels = head.add_cls_pos_inds(points, torch.rand(len(points), 4),
                                         torch.tensor(maps), batch)
    assert not labels.any()
    sizes = [h * w for h, w in maps]

    def row(level, image, column, line):
        return 3 * sum(sizes[:level]) + image * sizes[level] + \
            line * maps[level][1] + column

    # Half the diagonal decides: 45 is of P3 (0 to 80), 16 too, 90.5 of P4
    # (64 to 160).
    assert sorted(rows.tolist()) == sorted([
        row(0, 0, 48 // 8, 48 // 8),
        row(0, 0, 110 // 8, 17 // 8),
        row(1, 2, 64 // 16, 64 // 16),
    ])
    assert head.add_cls_pos_inds(points, torch.rand(len(points), 4),
                                 torch.tensor(maps), [boxes()]) == (None, None)


def test_the_published_loss_of_the_first_stage():
    """Heat map and boxes of one centre, put together by hand."""
    torch.manual_seed(0)
    head = MODELS.build(
        ConfigDict(
            dict(
                CFG,
                extra_positives=False,
                loss_cls=dict(type='mmdet_clim.HeatMapFocalLoss'),
                loss_bbox=dict(type='mmdet.GIoULoss', loss_weight=1.))))
    outs = head(feats())
    batch = [boxes([16, 16, 80, 80])]
    losses = head.loss_by_feat(*outs, batch, [META])
    points = head.prior_generator.grid_priors([f.shape[2:] for f in feats()],
                                              device='cpu')
    heat, _ = head.get_targets(points, batch)
    p = torch.cat([level.flatten() for level in outs[0]]).sigmoid()
    centre = p[6 * 16 + 6]
    far = (1 - heat[:, 0])**4 * (p < .85)
    expected = .125 * (1 - centre)**2 * -centre.log() + \
        .375 * (far * p**2 * -(1 - p).log()).sum()
    torch.testing.assert_close(losses['loss_cls'], expected)
    assert 0 < losses['loss_bbox'] < 2
