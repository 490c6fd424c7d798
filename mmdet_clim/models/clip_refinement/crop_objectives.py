# Licensed under the Apache License, Version 2.0.
"""Objectives that learn from what CLIP sees in the crops of boxes."""
from typing import Any

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import reduce_mean
from torch import Tensor

from mmdet_clim.checks import check_range
from mmdet_clim.models.class_texts import ClassTexts
from mmdet_clim.models.losses import FederatedClassLoss
from mmdet_clim.models.text_encoders import DEFAULT_TEMPLATES, Templates
from mmdet_clim.registry import MODELS

from .objective_base import (
    BaseCLIPObjective,
    Towers,
    crop_images,
    original_temperature,
)


@MODELS.register_module()
class RegionLabelObjective(BaseCLIPObjective):
    r"""Proposals labelled with nouns by CLIP: RegionCLIP's way.

    The original CLIP sees the crop of a box and names it by the nearest
    noun; the region feature of the box then learns that noun, by sigmoid
    cross-entropy on :math:`\tau \cos + b` over some drawn nouns (REFERENCE.md,
    section 4: 100). It is what CLIM is compared with; CLIM itself needs no
    proposals and no names.

    Args:
        boxes (dict): Config of a :class:`BoxSource`.
        vocabulary: The nouns, anything that
            :func:`~mmdet_clim.datasets.build_vocabulary` reads.
        templates (str or Sequence[str]): See ``resolve_templates``.
        temperature (float, optional): :math:`\tau`. Defaults to the scale
            that CLIP itself has learned.
        bias (float, optional): :math:`b`, where it starts; it is learned.
            None: there is no bias.
        min_confidence (float): Boxes whose noun the original CLIP gives a
            smaller probability teach nothing.
        loss (dict, optional): Config of the :class:`FederatedClassLoss`.
            Defaults to 100 drawn nouns, the same in all processes.

    Raises:
        ValueError: If ``min_confidence`` is not a probability, or the text
            tower is trained: the nouns are embedded once, and what names the
            crops is the original CLIP, text tower too.
    """

    def __init__(self,
                 boxes: dict,
                 vocabulary: Any,
                 templates: Templates = DEFAULT_TEMPLATES,
                 temperature: float | None = None,
                 bias: float | None = None,
                 min_confidence: float = 0.0,
                 loss: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        check_range(0, 1, without=(1, ), min_confidence=min_confidence)
        self.boxes = MODELS.build(boxes)
        self.temperature = temperature
        self.logit_bias = None if bias is None else torch.nn.Parameter(
            torch.tensor(float(bias)))
        self.min_confidence = min_confidence
        self.class_loss = MODELS.build(loss) if loss else \
            FederatedClassLoss(100, gather=True)
        self.classes = ClassTexts(vocabulary, templates)
        self.class_loss.set_classes(self.classes)

    def prepare(self, towers: Towers) -> None:
        """Embed the nouns; take CLIP's own scale where none is given."""
        if any(p.requires_grad for p in towers.text.parameters()):
            raise ValueError(
                'text_encoder: RegionLabelObjective expects a frozen one, as '
                'OpenCLIPTextEncoder is, got a trained '
                f'{type(towers.text).__name__}')
        self.classes(towers.text)
        if self.temperature is None:
            self.temperature = original_temperature(towers)

    @property
    def nouns(self) -> Tensor:
        """Unit vectors (C, D) of the nouns."""
        return self.classes.embeddings

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        rois = bbox2roi([self.boxes(s).to(images.device) for s in samples])
        labels, confidence = self._name(images, rois, towers)
        sure = confidence >= self.min_confidence
        # As background it would be a negative of every noun, with weight 0.
        labels = torch.where(sure, labels, len(self.nouns))
        regions = towers.image.region_features(images, rois)
        # Of all ranks on average, as DDP averages their gradients.
        num_sure = reduce_mean(sure.float().sum()).item()
        with torch.autocast(images.device.type, enabled=False):
            logits = self.temperature * regions.float() @ self.nouns.t()
            if self.logit_bias is not None:
                logits = logits + self.logit_bias
        sure = sure.float()
        loss = self.class_loss(logits, labels, sure, max(num_sure, 1.0))
        return {'loss': loss, 'sure': sure.mean() * 100}

    @torch.no_grad()
    def _name(self, images: Tensor, rois: Tensor, towers: Towers):
        """Nearest noun and its probability, by the original CLIP."""
        crops = crop_images(images, rois, towers.original.native_size)
        seen = towers.original.encode_image(crops)
        with torch.autocast(images.device.type, enabled=False):
            cosines = seen.float() @ self.nouns.t()
        chances = (original_temperature(towers) * cosines).softmax(1)
        confidence, labels = chances.max(1)
        return labels, confidence


@MODELS.register_module()
class SelfDistillationObjective(BaseCLIPObjective):
    r"""Region features that equal what CLIP sees in the region's crop.

    The idea of CLIPSelf (arXiv 2310.01403): with :math:`r_k` the region
    feature of box :math:`k` and :math:`o_k` the image embedding of its crop
    by the original CLIP, both of norm one,

    .. math:: L = \frac{1}{K} \sum_k (1 - r_k \cdot o_k)

    It needs no text. :math:`K` is the number of boxes per process, on average
    over the processes, as DDP averages the gradients.

    Args:
        boxes (dict, optional): Config of a :class:`BoxSource`. Defaults to
            :class:`GridBoxes`.
        crop_size (int, optional): Side in pixels of the squares that crops
            are squashed to. Defaults to what CLIP was trained on.
        loss_weight (float): Factor on the loss.
    """

    def __init__(self,
                 boxes: dict | None = None,
                 crop_size: int | None = None,
                 loss_weight: float = 1.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.boxes = MODELS.build(boxes or dict(type='mmdet_clim.GridBoxes'))
        self.crop_size = crop_size
        self.loss_weight = loss_weight

    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """See :class:`BaseCLIPObjective`."""
        rois = bbox2roi([self.boxes(s).to(images.device) for s in samples])
        with torch.no_grad():
            crops = crop_images(images, rois, self.crop_size
                                or towers.original.native_size)
            wanted = towers.original.encode_image(crops)
        regions = towers.image.region_features(images, rois)
        cosines = (regions * wanted).sum(1)
        count = reduce_mean(cosines.new_tensor(float(len(cosines))))
        return {'loss': self.loss_weight * (1 - cosines).sum() / count}
