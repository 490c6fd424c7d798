# Licensed under the Apache License, Version 2.0.
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_clim.models.checks import check_range
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.region_readers import BaseRegionReader
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.text_encoders import (
    DEFAULT_TEMPLATES,
    BaseTextEncoder,
    Templates,
)
from mmdet_clim.registry import MODELS

from .base import BaseObjective
from .context import BranchContext


@MODELS.register_module()
class OldWordsObjective(BaseObjective):
    r"""Keep a detector's responses to the words that it knew.

    The original detector, frozen, proposes regions of the same images. Both
    detectors read them; with :math:`p` the original's probability of an old
    word and :math:`q` the learning one's, the loss is the divergence of
    Bernoulli distributions

    .. math:: p \log\frac{p}{q} + (1 - p) \log\frac{1 - p}{1 - q},

    summed over words and averaged over regions: 0 as long as nothing has
    changed. What the detector says of other words is free.

    Args:
        detector (dict): Config of the plain detector.
        checkpoint (str): The original weights.
        vocabulary: Anything that ``build_vocabulary`` reads: the old words.
        templates (str or Sequence[str]): See ``resolve_templates``; those
            of the detector's classifier.
        num_regions (int): Regions per image, the best by score.
        loss_weight (float): Weight of the loss.

    Raises:
        ValueError: If ``num_regions`` is not positive or ``loss_weight``
            negative.
    """

    def __init__(self,
                 detector: dict,
                 checkpoint: str,
                 vocabulary,
                 templates: Templates = DEFAULT_TEMPLATES,
                 num_regions: int = 64,
                 loss_weight: float = 1.0,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(1, num_regions=num_regions)
        check_range(0, loss_weight=loss_weight)
        self.detector_cfg = detector
        self.checkpoint = checkpoint
        self.classes = ClassTexts(vocabulary, templates)
        self.num_regions = num_regions
        self.loss_weight = loss_weight
        # In a tuple: its weights are in no checkpoint, average or gradient.
        self._teacher: Tuple[nn.Module, ...] = ()

    def check(self, name: str, detector: nn.Module, reader: BaseRegionReader,
              text_encoder: Optional[BaseTextEncoder]) -> None:
        """Raise a TypeError unless regions are read as they are classified."""
        if not _classifiers(detector) or list(reader.parameters()):
            raise TypeError(
                f'objectives.{name}: an OldWordsObjective compares what a '
                'zero-shot head says of regions, got '
                f'{type(detector).__name__} without one, or of which a '
                f'{type(reader).__name__} reads other embeddings')

    def losses(self, context: BranchContext) -> Dict[str, Tensor]:
        """The divergence on the regions of a batch.

        Returns:
            dict: ``loss``, and ``kept``, of the regions in which the original
            is surest of an old word the share, in percent, where the learning
            detector is surest of the same one.
        """
        teacher = self.teacher(context.images.device)
        reader = context.reader
        with torch.no_grad():
            feats = reader.extract_feat(teacher, context.images,
                                        context.data_samples)
            rois = self._regions(reader.propose(teacher, feats))
            wanted = self._logits(
                teacher,
                [stage.read(rois)
                 for stage in reader.stages(teacher, feats)], context)
        weights = [stage.weight for stage in context.stages]
        found = self._logits(context.detector,
                             [stage.read(rois) for stage in context.stages],
                             context)
        total = sum(weight * divergence(after, before)
                    for weight, after, before in zip(weights, found, wanted))
        before, after = wanted[-1], found[-1]
        sure = before.max(1).values > 0 if len(rois) else before.new_zeros(
            0, dtype=torch.bool)
        same = before[sure].argmax(1) == after[sure].argmax(1)
        return dict(
            loss=self.loss_weight * total,
            kept=same.float().mean() * 100 if len(same) else total.new_full(
                (), 100.))

    def teacher(self, device: torch.device) -> nn.Module:
        """The original detector, built when first asked for.

        Args:
            device (torch.device): Where to have it.
        """
        if not self._teacher:
            from mmdet_clim.engine.checkpoints import load_weights
            model = MODELS.build(self.detector_cfg)
            load_weights(model, Path(self.checkpoint))
            self._teacher = (model.eval().requires_grad_(False), )
        return self._teacher[0].to(device)

    def _regions(self, proposals: Sequence) -> Tensor:
        """The best proposals of each image as RoIs (R, 5)."""
        rois = []
        for image, found in enumerate(proposals):
            boxes = found.bboxes[:self.num_regions]
            rois.append(F.pad(boxes, (1, 0), value=float(image)))
        return torch.cat(rois)

    def _logits(self, detector: nn.Module, embeddings: List[Tensor],
                context: BranchContext) -> List[Tensor]:
        """What a detector's classifiers say of old words, per stage (R, C)."""
        texts = self.classes(context.text_encoder).to(embeddings[0].device)
        classifiers = _classifiers(detector)
        if len(classifiers) != len(embeddings):
            classifiers = classifiers[:1] * len(embeddings)
        logits = []
        for classifier, read in zip(classifiers, embeddings):
            with torch.autocast(read.device.type, enabled=False):
                cosine = F.normalize(read.float(), dim=1) @ texts.t()
                bias = classifier.logit_bias
                logits.append(classifier.temperature * cosine +
                              (0 if bias is None else bias))
        return logits


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Bernoulli distributions.

    Args:
        logits (Tensor): Shape (R, C), with gradient.
        wanted (Tensor): Logits (R, C) of the distributions to come near to.

    Returns:
        Tensor: Scalar, the sum over C and mean over R; 0 without regions.
    """
    if not len(logits):
        return logits.sum()
    target = wanted.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction='sum')
    entropy = F.binary_cross_entropy_with_logits(
        wanted, target, reduction='sum')
    return (cross - entropy) / len(logits)


def _classifiers(detector: nn.Module) -> List[ZeroShotClassifier]:
    return [m for m in detector.modules() if isinstance(m, ZeroShotClassifier)]
