# Licensed under the Apache License, Version 2.0.
"""Regions and their prompts as mmdet's grounding detectors train on them."""
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.models.families.text_conditioned import (
    GroundingDetector,
    TextConditionedFamily,
)
from mmdet_clim.models.host import upload

from ..composition import union_boxes
from .targets import ToldPrompt, tell_one

# What is looked for where there is nothing to find.
NOTHING = 'object'


def grounding_sample(told: ToldPrompt, tiles: Tensor, width: int,
                     metainfo: dict) -> DetDataSample:
    """One prompt of an image as grounding data.

    Args:
        told (ToldPrompt): The prompt and its regions.
        tiles (Tensor): Shape (K, 4), the image's tiles, absolute xyxy pixels.
        width (int): Tokens that a detector's map of positives has.
        metainfo (dict): Of the image.

    Returns:
        DetDataSample: With ``text`` and ``token_ids``, and ``gt_instances``:
        ``bboxes`` (n, 4), absolute xyxy, ``labels`` (n,), which number the
        boxes, and ``positive_maps`` (n, width), 0 or 1.
    """
    sample = DetDataSample(metainfo=dict(metainfo, text=told.text))
    sample.token_ids = told.ids
    positive = F.pad(
        torch.from_numpy(told.positive), (0, width - len(told.ids)))
    boxes = union_boxes(tiles, upload(torch.from_numpy(told.members), tiles))
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.arange(len(boxes), device=boxes.device),
        positive_maps=upload(positive, boxes).float())
    return sample


def nothing_to_find(family: TextConditionedFamily, detector: GroundingDetector,
                    num_tiles: int) -> ToldPrompt:
    """A prompt that no tile is found by.

    Args:
        family (TextConditionedFamily): Of the detector.
        detector (GLIP or GroundingDINO): The detector.
        num_tiles (int): Of the image.
    """
    tokenizer = detector.language_model.tokenizer
    prompt, = family.prompts([NOTHING], tokenizer, family.max_tokens(detector))
    return tell_one(prompt, torch.zeros(0, num_tiles, dtype=torch.bool), [],
                    tokenizer)
