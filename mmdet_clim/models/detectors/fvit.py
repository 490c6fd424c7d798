# Licensed under the Apache License, Version 2.0.

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from mmdet_clim.registry import MODELS

from ..backbones.open_clip_backbones import OpenCLIPBackbone


@MODELS.register_module()
class FViT(TwoStageDetector):
    """A two-stage detector on the frozen image tower of a CLIP.

    F-VLM (Kuo et al., "F-VLM: Open-Vocabulary Object Detection upon Frozen
    Vision and Language Models", ICLR 2023) on a ResNet, F-ViT on a vision
    transformer: neck and heads are trained, and at test time each proposal is
    scored by the tower's own dense features too (REFERENCE.md, section 5).
    With ``mask_head`` in the RoI head it gives class-agnostic masks.

    Args:
        backbone (dict): :class:`OpenCLIPViT` or :class:`OpenCLIPResNet`.
        roi_head (dict): :class:`FViTRoIHead`.
        **kwargs: Of :class:`mmdet.TwoStageDetector`.

    Raises:
        TypeError: If the backbone is no image tower of open_clip.
        ValueError: If the text embeddings are not of the tower's space.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.backbone, OpenCLIPBackbone):
            raise TypeError('FViT: expected backbone OpenCLIPViT or '
                            'OpenCLIPResNet, got '
                            f'{type(self.backbone).__name__}')
        classifier = self.roi_head.bbox_head.fc_cls
        width = classifier.class_embeddings.shape[1]
        if width != self.backbone.tower.embed_dim:
            raise ValueError(
                f'FViT: text embeddings of width {width}, expected '
                f'{self.backbone.tower.embed_dim}, that of the image tower; '
                'they must come from the same CLIP')

    def set_vocabulary(self,
                       vocabulary,
                       embeddings: Tensor | None = None) -> None:
        """Replace the classes; see ``ZeroShotClassifier``."""
        self.roi_head.bbox_head.set_vocabulary(vocabulary, embeddings)

    def predict(self,
                batch_inputs: Tensor,
                batch_data_samples: SampleList,
                rescale: bool = True) -> SampleList:
        """Detections of a batch.

        Args:
            batch_inputs (Tensor): Images (N, 3, H, W), normalised.
            batch_data_samples (list[DetDataSample]): Of each image; where
                they have ``proposals``, these are used.
            rescale (bool): Whether boxes are of the original image.

        Returns:
            list[DetDataSample]: With ``pred_instances``: ``bboxes`` (n, 4)
            absolute xyxy, ``scores``, ``labels`` and, with a mask head,
            ``masks`` (n, H, W).
        """
        maps, encoded = self.backbone.encode(batch_inputs)
        x = self.backbone.pyramid(maps)
        if self.with_neck:
            x = self.neck(x)
        if batch_data_samples[0].get('proposals', None) is None:
            proposals = self.rpn_head.predict(
                x, batch_data_samples, rescale=False)
        else:
            proposals = [sample.proposals for sample in batch_data_samples]
        embeddings = self.backbone.region_features_of(
            encoded, bbox2roi([of_image.bboxes for of_image in proposals]))
        counts = [len(of_image) for of_image in proposals]
        for of_image, own in zip(proposals, torch.split(embeddings, counts)):
            of_image.clip_embeddings = own
        results = self.roi_head.predict(
            x, proposals, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)
