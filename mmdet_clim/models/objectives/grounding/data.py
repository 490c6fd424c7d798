# Licensed under the Apache License, Version 2.0.
"""Regions and their phrases as mmdet's grounding detectors train on them."""
from typing import Sequence

import torch
from mmdet.structures import DetDataSample, SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.models.families.text_conditioned import (
    GroundingDetector,
    TextConditionedFamily,
)
from mmdet_clim.models.grounding_prompts import GroundingPrompt

# What is looked for where there is nothing to find.
NOTHING = 'object'


def grounding_samples(prompts: Sequence[GroundingPrompt], boxes: Tensor,
                      positives: Tensor, metainfo: dict) -> SampleList:
    """One image as grounding data: a sample for each of its prompts.

    A box stands in every prompt that holds one of its phrases or a part of
    it; a prompt without a box gives no sample.

    Args:
        prompts (Sequence[GroundingPrompt]): Of the image's phrases.
        boxes (Tensor): Shape (n, 4), absolute xyxy pixels.
        positives (Tensor): bool (n, P): which box shows which phrase.
        metainfo (dict): Of the image.
    """
    shown = [row.nonzero().flatten().tolist() for row in positives.cpu()]
    samples = []
    for prompt in prompts:
        spans = [[
            span for index in of_box for span in prompt.spans.get(index, [])
        ] for of_box in shown]
        rows = [row for row, of_row in enumerate(spans) if of_row]
        if rows:
            samples.append(
                _sample(prompt, [spans[row] for row in rows], boxes[rows],
                        metainfo))
    return samples


def nothing_to_find(family: TextConditionedFamily, detector: GroundingDetector,
                    metainfo: dict) -> DetDataSample:
    """An image with a prompt and without a box.

    Args:
        family (TextConditionedFamily): Of the detector.
        detector (GLIP or GroundingDINO): The detector.
        metainfo (dict): Of the image.
    """
    prompt, = family.prompts(detector, [NOTHING])
    device = next(detector.parameters()).device
    return _sample(prompt, [], torch.zeros(0, 4, device=device), metainfo)


def _sample(prompt: GroundingPrompt, spans: list, boxes: Tensor,
            metainfo: dict) -> DetDataSample:
    sample = DetDataSample(
        metainfo=dict(metainfo, text=prompt.text, tokens_positive=spans))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.arange(len(boxes), device=boxes.device))
    return sample
