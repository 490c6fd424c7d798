# Licensed under the Apache License, Version 2.0.
"""CenterNet2, which is mmdet's ``CascadeRCNN`` by config."""
import copy

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS


def painted(make, seed):
    """An image whose two boxes are bright, in the class's own colour."""
    image, sample = make['box'](seed)
    image = image // 8
    gt = sample.gt_instances
    gt.bboxes = torch.tensor([[4., 6., 28., 30.], [32., 24., 60., 58.]])
    gt.bboxes += seed % 4
    gt.labels = torch.tensor([0, 1])
    for box, label in zip(gt.bboxes.int().tolist(), gt.labels.tolist()):
        image[label, box[1]:box[3], box[0]:box[2]] = 250
    gt.masks.masks[:] = 0
    for mask, box in zip(gt.masks.masks, gt.bboxes.int().tolist()):
        mask[box[1]:box[3], box[0]:box[2]] = 1
    return image, sample


def test_it_finds_what_it_was_shown(centernet2_cfg, make):
    """Boxes, classes and masks of four images, learnt from scratch."""
    torch.manual_seed(0)
    detector = MODELS.build(centernet2_cfg).train()
    batch = make['collate'](*[painted(make, seed) for seed in range(4)])
    optim = OptimWrapper(torch.optim.AdamW(detector.parameters(), lr=5e-3))
    for _ in range(150):
        detector.train_step(copy.deepcopy(batch), optim)
    results = detector.eval().test_step(copy.deepcopy(batch))
    for sample, result in zip(batch['data_samples'], results):
        gt, found = sample.gt_instances, result.pred_instances
        # The two objects come first, far before anything else.
        assert sorted(found.labels[:2].tolist()) == [0, 1]
        assert found.scores[1] > 2 * found.scores[2]
        order = found.labels[:2].argsort()
        overlaps = bbox_overlaps(
            gt.bboxes, found.bboxes[order], is_aligned=True)
        assert (overlaps > .8).all(), overlaps
        drawn = torch.from_numpy(gt.masks.masks).bool()
        masks = found.masks[order]
        iou = (drawn & masks).sum((1, 2)) / (drawn | masks).sum((1, 2))
        assert (iou > .7).all(), iou
