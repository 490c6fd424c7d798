# Licensed under the Apache License, Version 2.0.
"""Old words in regions, of detectors that compare them with texts."""
from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.modes import evaluating
from mmdet_clim.models.roi_heads import (
    PseudoWordClassifier,
    ZeroShotClassifier,
)
from mmdet_clim.models.text_encoders import BaseTextEncoder

from ..context import BranchContext
from .responses import Responses


def classifiers_of(detector: nn.Module) -> List[ZeroShotClassifier]:
    """The classifiers by text, of each stage.

    Args:
        detector (nn.Module): Any detector.
    """
    return [m for m in detector.modules() if isinstance(m, ZeroShotClassifier)]


def region_responses(teacher: nn.Module, context: BranchContext,
                     classes: ClassTexts, num_regions: int) -> List[Responses]:
    """What both detectors read in regions that the original proposes.

    Args:
        teacher (nn.Module): The original.
        context (BranchContext): With the detector that learns.
        classes (ClassTexts): The old words.
        num_regions (int): Regions of each image, the best ones.

    Returns:
        list[Responses]: One of each stage.
    """
    reader = context.reader
    with torch.no_grad():
        feats = reader.extract_feat(teacher, context.images,
                                    context.data_samples)
        rois = _regions(reader.propose(teacher, feats), num_regions)
        before = [
            stage.read_as_text(rois)
            for stage in reader.stages(teacher, feats)
        ]
        texts = classes(_encoder(teacher, context)).to(rois.device)
        wanted = _log_odds(teacher, before, texts)
    stages = context.stages
    # In training, words of regions are dropped.
    with evaluating(context.detector):
        after = [stage.read_as_text(rois) for stage in stages]
    found = _log_odds(context.detector, after, texts)
    return [
        Responses(learned, known, weight=stage.weight)
        for stage, learned, known in zip(stages, found, wanted)
    ]


def _regions(proposals: Sequence, num_regions: int) -> Tensor:
    """The best proposals of each image as RoIs (R, 5)."""
    return torch.cat([
        F.pad(found.bboxes[:num_regions], (1, 0), value=float(image))
        for image, found in enumerate(proposals)
    ])


def _encoder(teacher: nn.Module, context: BranchContext) -> BaseTextEncoder:
    """What embeds the classes: of words, the one that reads the regions."""
    classifier, *_ = classifiers_of(teacher)
    if isinstance(classifier, PseudoWordClassifier):
        return classifier.text_encoder
    return context.text_encoder


def _log_odds(detector: nn.Module, vectors: List[Tensor],
              texts: Tensor) -> List[Tensor]:
    """What a detector's classifiers say of texts, per stage (R, C)."""
    classifiers = classifiers_of(detector)
    if len(classifiers) != len(vectors):
        classifiers = classifiers[:1] * len(vectors)
    return [
        classifier.text_log_odds(of_stage, texts)
        for classifier, of_stage in zip(classifiers, vectors)
    ]
